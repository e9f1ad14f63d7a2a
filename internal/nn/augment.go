// SPDX-License-Identifier: Apache-2.0

package nn

import "fmt"

// Augment says how records are changed before training sees them. What happens to a
// record is a function of the seed, the replica, the step and the record's place in
// the step's batch: not of how the batch is cut. Evaluation sees records as they
// are.
type Augment struct {
	// Flips mirrors every other record, by chance, left to right.
	Flips bool
	// Shifts moves every record by up to so many rows and columns, each number from
	// -Shifts to Shifts as likely as the others. What comes in is zero: padding by
	// Shifts on all sides and cutting out at random.
	Shifts int
}

// validate says whether records of that shape can be changed so.
func (a Augment) validate(in Shape) error {
	if a.Shifts < 0 || a.Shifts > 0 && a.Shifts >= min(in.H, in.W) {
		return fmt.Errorf("%w: shifts by up to %d of records of %v, not below their sides", ErrInput, a.Shifts, in)
	}
	return nil
}

// chances returns the generator of a step: value i decides what happens to record i.
func (a Augment) chances(s StepInput) stream { return stepStream("augment", s, 0) }

// apply changes one record in place.
func (a Augment) apply(in Shape, x []float32, chance uint64) {
	row := in.W * in.C
	if a.Flips && chance>>63 != 0 {
		for y := range in.H {
			flip(x[y*row:][:row], in.C)
		}
	}
	if a.Shifts == 0 {
		return
	}
	among := uint64(2*a.Shifts + 1)
	shift := func(bits uint64) int { return int((bits&(1<<24-1))*among>>24) - a.Shifts }
	down, right := shift(chance), shift(chance>>24)
	// Rows are overwritten only after they have been read.
	for i := range in.H {
		y := i
		if down > 0 {
			y = in.H - 1 - i
		}
		to := x[y*row:][:row]
		from := y - down
		if from < 0 || from >= in.H {
			clear(to)
			continue
		}
		source := x[from*row:][:row]
		if right >= 0 {
			copy(to[right*in.C:], source)
			clear(to[:right*in.C])
		} else {
			copy(to, source[-right*in.C:])
			clear(to[row+right*in.C:])
		}
	}
}

// flip reverses the order of a row's pixels.
func flip(row []float32, channels int) {
	for i, j := 0, len(row)-channels; i < j; i, j = i+channels, j-channels {
		for c := range channels {
			row[i+c], row[j+c] = row[j+c], row[i+c]
		}
	}
}

// augment changes the n records of a part in the input buffer.
func (in *Instance) augment(n int, p *part) {
	a := in.program.cfg.Augment
	if a == (Augment{}) {
		return
	}
	shape := in.program.spec.Input
	size, chances := shape.Elements(), a.chances(p.StepInput)
	for r := range n {
		a.apply(shape, in.input[r*size:][:size], chances.at(uint64(p.First+p.from+r)))
	}
}
