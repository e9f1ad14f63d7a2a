// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"unsafe"
)

// Window is the memory that holds the records of one piece, or some of them, in
// shard order.
type Window struct {
	Pixels []byte
	Labels []uint16
	// Pick are the records to hold, counted from the start of the range that is
	// read, in rising order; nil is all of it.
	Pick []uint32
}

// NewWindow makes an empty window with room for that many records.
func NewWindow(records, recordBytes int) *Window {
	return &Window{Pixels: make([]byte, 0, records*recordBytes), Labels: make([]uint16, 0, records)}
}

// LoadFunc fills the window with exactly the records of the piece that the window
// picks, usually by [Reader.ReadRange] on an object of the store. The window is
// large enough for it and belongs to the stream; load may use it during the call
// only. A load that failed may be called again for the same piece.
type LoadFunc func(ctx context.Context, p Piece, dst *Window) error

// Order is how a replica sees its records: a function of the key and the epoch.
type Order struct {
	Seed    uint64
	Replica int
}

// The last part of a key keeps the permutation of the pieces apart from those
// of the records.
const (
	keyPieces  = 1
	keyRecords = 2
)

// Pieces fills dst with the order in which epoch visits the replica's pieces:
// indices into its list.
func (o Order) Pieces(epoch int, dst []uint32) {
	r := NewRand(o.Seed, uint64(epoch), uint64(o.Replica), keyPieces)
	r.Perm(dst)
}

// Records fills dst with the order in which epoch visits the records of the
// piece with that index in the replica's list.
func (o Order) Records(epoch, piece int, dst []uint32) {
	r := NewRand(o.Seed, uint64(epoch), uint64(o.Replica), uint64(piece), keyRecords)
	r.Perm(dst)
}

// StreamSpec says which records a [Stream] reads and in which batches.
type StreamSpec struct {
	// Pieces are what the replica owns; see [Pieces]. May be empty.
	Pieces []Piece
	// RecordBytes is the size of an image; see [Header.RecordBytes].
	RecordBytes int
	// Seed and Replica key the order.
	Seed    uint64
	Replica int
	// InOrder reads the pieces as they come, the same in every epoch, for
	// evaluation. Seed and Replica then do not matter.
	InOrder bool
	// Window is the most records of a piece that are held at a time; 0 is all of
	// them. With fewer a piece is read once for each window of its order: less
	// memory for more reading, and the same batches.
	Window int
	// Batch is the number of records a step takes; the last of an epoch may
	// have fewer.
	Batch int
	// StepsPerEpoch divides step numbers into epochs. With fewer steps than
	// the records need, the rest of an epoch's order is not seen in it; with
	// more, the steps beyond have empty batches. All replicas of a job have the
	// same number although their records may differ by one.
	StepsPerEpoch int
	// Parts, if more than one, divides the records of every batch as [Owned] does
	// those of a data set: Next returns the part with the number Part. Streams
	// that differ only in Part together read what one without parts reads.
	Parts, Part int
}

// parts is Parts as it is meant.
func (s StreamSpec) parts() int { return max(1, s.Parts) }

// largestPart is the number of records of the largest part of a batch.
func (s StreamSpec) largestPart() int { return (s.Batch-1)/s.parts() + 1 }

// Validate says what is wrong with a spec that came from outside the program.
func (s StreamSpec) Validate() error {
	switch {
	case s.RecordBytes < 1 || s.RecordBytes > MaxBytes:
		return fmt.Errorf("shard: stream of records of %d bytes, want 1 to %d", s.RecordBytes, MaxBytes)
	case s.Batch < 1 || s.Batch > MaxRecords:
		return fmt.Errorf("shard: stream with batch %d, want 1 to %d", s.Batch, MaxRecords)
	case int64(s.Batch)*int64(s.RecordBytes) > MaxBytes:
		return fmt.Errorf("shard: stream with batches of %d records of %d bytes, more than %d bytes", s.Batch, s.RecordBytes, MaxBytes)
	case s.Window < 0:
		return fmt.Errorf("shard: stream with a window of %d records", s.Window)
	case s.StepsPerEpoch < 1:
		return fmt.Errorf("shard: stream with %d steps an epoch", s.StepsPerEpoch)
	case s.Parts < 0 || s.Part < 0 || s.Part >= s.parts():
		return fmt.Errorf("shard: stream of part %d of %d", s.Part, s.parts())
	}
	for i, p := range s.Pieces {
		if p.Shard < 0 || p.From < 0 || p.To <= p.From || p.To > MaxRecords {
			return fmt.Errorf("shard: piece %d is records [%d, %d) of shard %d", i, p.From, p.To, p.Shard)
		}
		if int64(p.Len())*int64(s.RecordBytes) > MaxBytes {
			return fmt.Errorf("shard: piece %d has %d records of %d bytes, more than %d bytes", i, p.Len(), s.RecordBytes, MaxBytes)
		}
	}
	return nil
}

// WindowBytes is exactly what a stream over these pieces takes to hold one
// piece at a time: pixels and labels of the largest piece, its order, and the
// order of the pieces.
func WindowBytes(pieces []Piece, recordBytes int) int64 {
	return int64(largest(pieces))*int64(recordBytes+labelBytes+orderBytes) + int64(len(pieces))*orderBytes
}

// BatchBytes is exactly what a stream takes for its batch.
func BatchBytes(batch, recordBytes int) int64 {
	return int64(batch) * int64(recordBytes+labelBytes)
}

// Bytes is exactly what a stream over s takes: [WindowBytes] plus the
// [BatchBytes] of the largest part of a batch, or less where the window holds a
// part of a piece, which adds the list of the records in it.
func (s StreamSpec) Bytes() int64 {
	all := WindowBytes(s.Pieces, s.RecordBytes) + BatchBytes(s.largestPart(), s.RecordBytes)
	if most, held := largest(s.Pieces), s.held(); held < most {
		all += int64(held)*orderBytes - int64(most-held)*int64(s.RecordBytes+labelBytes)
	}
	return all
}

// held is the most records that the window holds.
func (s StreamSpec) held() int {
	most := largest(s.Pieces)
	if s.Window == 0 {
		return most
	}
	return min(s.Window, most)
}

const orderBytes = 4

func largest(pieces []Piece) int {
	n := 0
	for _, p := range pieces {
		n = max(n, p.Len())
	}
	return n
}

// Batch is what one step takes. Its slices are views into the stream's buffers
// and valid until the next call of Next.
type Batch struct {
	Step, Epoch int
	// First is the place of the first of these records in the whole batch.
	First int
	// Pixels are the images one after the other, Labels their classes. Both
	// are empty when the replica has no record left in this epoch.
	Pixels []byte
	Labels []uint16
}

// Len is the number of records in b.
func (b Batch) Len() int { return len(b.Labels) }

// Stream assembles batches from pieces, one piece in memory at a time.
type Stream struct {
	spec    StreamSpec
	order   Order
	records int
	step    int

	batchPixels []byte
	batchLabels []uint16

	// Everything below is a cache of functions of (epoch, place): forgetting it
	// costs time and changes nothing.

	epoch      int      // whose pieceOrder this is; -1 for none
	pieceOrder []uint32 // indices into spec.Pieces
	place      int      // a place in pieceOrder
	before     int      // records of the epoch before that place

	window      *Window
	loaded      int // index of the piece in the window; -1 for none
	loadedPart  int // which part of its order that is, and of which epoch
	loadedEpoch int
	picked      []uint32 // room for window.Pick; nil where it holds whole pieces
	orderPiece  int      // whose recordOrder this is; -1 for none
	orderEpoch  int
	recordOrder []uint32
}

// NewStream makes a stream that starts at step 0 and allocates all it will
// ever need. It keeps spec.Pieces and never changes them.
func NewStream(spec StreamSpec) (*Stream, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	// Numbers of four bytes, because the orders lie at the start.
	numbers := make([]uint32, max(1, (spec.Bytes()+orderBytes-1)/orderBytes))
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(numbers))), len(numbers)*orderBytes)
	return NewStreamIn(memory, spec)
}

// NewStreamIn is NewStream in memory of the caller's: at least spec.Bytes()
// bytes, aligned to 4, whose content does not matter and which is the stream's
// as long as the stream is used. Memory outside the Go heap goes back to the
// system when the caller gives it back, not when the collector finds the time.
func NewStreamIn(memory []byte, spec StreamSpec) (*Stream, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if need := spec.Bytes(); int64(len(memory)) < need {
		return nil, fmt.Errorf("shard: stream in %d bytes of memory, it takes %d", len(memory), need)
	}
	if len(memory) > 0 && uintptr(unsafe.Pointer(unsafe.SliceData(memory)))%orderBytes != 0 {
		return nil, errors.New("shard: stream in memory that is not aligned")
	}
	most := largest(spec.Pieces)
	// In falling order of alignment.
	take := func(bytes int) unsafe.Pointer {
		part := memory[:bytes:bytes]
		memory = memory[bytes:]
		return unsafe.Pointer(unsafe.SliceData(part))
	}
	numbers := func(n int) []uint32 { return unsafe.Slice((*uint32)(take(n*orderBytes)), n) }
	labels := func(n int) []uint16 { return unsafe.Slice((*uint16)(take(n*labelBytes)), n) }
	pixels := func(n int) []byte { return unsafe.Slice((*byte)(take(n*spec.RecordBytes)), n*spec.RecordBytes) }
	s := &Stream{
		spec:       spec,
		order:      Order{Seed: spec.Seed, Replica: spec.Replica},
		records:    Records(spec.Pieces),
		epoch:      -1,
		loaded:     -1,
		orderPiece: -1,
	}
	held := spec.held()
	s.pieceOrder, s.recordOrder = numbers(len(spec.Pieces)), numbers(most)
	if held < most {
		s.picked = numbers(held)
	}
	s.window = &Window{Labels: labels(held)[:0]}
	s.batchLabels = labels(spec.largestPart())
	s.window.Pixels = pixels(held)[:0]
	s.batchPixels = pixels(spec.largestPart())
	return s, nil
}

// Bytes is what the stream's buffers take, see [StreamSpec.Bytes].
func (s *Stream) Bytes() int64 {
	return int64(cap(s.batchPixels)) + labelBytes*int64(cap(s.batchLabels)) +
		int64(cap(s.window.Pixels)) + labelBytes*int64(cap(s.window.Labels)) +
		orderBytes*int64(cap(s.recordOrder)+cap(s.pieceOrder)+cap(s.picked))
}

// Step is the step that Next returns next.
func (s *Stream) Step() int { return s.step }

// Seek makes step the one that Next returns next. Steps are counted from 0
// over all epochs.
func (s *Stream) Seek(step int) error {
	if step < 0 {
		return fmt.Errorf("shard: seek to step %d", step)
	}
	s.step = step
	return nil
}

// Next returns the batch of the present step and moves on. It calls load when
// it needs a piece that is not in the window. After an error the stream still
// stands at the same step.
func (s *Stream) Next(ctx context.Context, load LoadFunc) (Batch, error) {
	epoch, inEpoch := s.step/s.spec.StepsPerEpoch, s.step%s.spec.StepsPerEpoch
	b := Batch{Step: s.step, Epoch: epoch}
	from := s.records
	// Dividing first: inEpoch*Batch may overflow for absurd numbers of steps.
	if inEpoch <= s.records/s.spec.Batch {
		from = min(s.records, inEpoch*s.spec.Batch)
	}
	first, end := Owned(min(s.spec.Batch, s.records-from), s.spec.parts(), s.spec.Part)
	b.First = first
	from, n := from+first, end-first
	for filled := 0; filled < n; {
		got, err := s.fill(ctx, load, epoch, from+filled, filled, n)
		if err != nil {
			return Batch{}, fmt.Errorf("batch of step %d: %w", s.step, err)
		}
		filled += got
	}
	b.Pixels = s.batchPixels[:n*s.spec.RecordBytes]
	b.Labels = s.batchLabels[:n]
	s.step++
	return b, nil
}

// fill copies records of the epoch's order, from position at on, into the batch
// from record filled up to n, as far as one piece has them.
func (s *Stream) fill(ctx context.Context, load LoadFunc, epoch, at, filled, n int) (int, error) {
	s.find(epoch, at)
	index := int(s.pieceOrder[s.place])
	piece := s.spec.Pieces[index]
	s.arrange(epoch, index, piece.Len())
	offset, size := at-s.before, s.spec.RecordBytes
	end, err := s.hold(ctx, load, epoch, index, offset)
	if err != nil {
		return 0, err
	}
	count := min(n-filled, end-offset)
	for i := range count {
		record := int(s.recordOrder[offset+i])
		if s.picked != nil {
			record, _ = slices.BinarySearch(s.window.Pick, uint32(record))
		}
		copy(s.batchPixels[(filled+i)*size:(filled+i+1)*size], s.window.Pixels[record*size:])
		s.batchLabels[filled+i] = s.window.Labels[record]
	}
	return count, nil
}

// find sets place to the piece that holds position at of the epoch.
func (s *Stream) find(epoch, at int) {
	if s.epoch != epoch {
		if s.spec.InOrder {
			for i := range s.pieceOrder {
				s.pieceOrder[i] = uint32(i)
			}
		} else {
			s.order.Pieces(epoch, s.pieceOrder)
		}
		s.epoch, s.place, s.before = epoch, 0, 0
	}
	if at < s.before {
		s.place, s.before = 0, 0
	}
	for {
		n := s.spec.Pieces[s.pieceOrder[s.place]].Len()
		if at < s.before+n {
			return
		}
		s.before += n
		s.place++
	}
}

// hold has the record at an offset of the piece's order in the window, and
// returns where in the order the window ends. A replica with one piece that fits
// loads it once for all epochs, because the window keeps the order of the shard.
func (s *Stream) hold(ctx context.Context, load LoadFunc, epoch, index, offset int) (end int, err error) {
	p, w := s.spec.Pieces[index], s.window
	n, part := p.Len(), 0
	from, end := 0, n
	if held := s.spec.held(); held < n {
		part = offset / held
		from, end = part*held, min((part+1)*held, n)
	}
	partial := end-from < n
	if s.loaded == index && s.loadedPart == part && (!partial || s.loadedEpoch == epoch) {
		return end, nil
	}
	s.loaded = -1
	w.Pick = nil
	if s.picked != nil {
		// Also a piece that fits is found through the list.
		w.Pick = s.picked[:end-from]
		copy(w.Pick, s.recordOrder[from:end])
		slices.Sort(w.Pick)
	}
	pixels, labels := w.Pixels[:0], w.Labels[:0]
	w.Pixels, w.Labels = pixels, labels
	err = load(ctx, p, w)
	if err == nil && (len(w.Labels) != end-from || len(w.Pixels) != (end-from)*s.spec.RecordBytes) {
		err = fmt.Errorf("%w: %d labels and %d bytes of pixels for %d records of %d bytes",
			ErrFormat, len(w.Labels), len(w.Pixels), end-from, s.spec.RecordBytes)
	}
	if err == nil && (cap(w.Labels) != cap(labels) || cap(w.Pixels) != cap(pixels)) {
		// A load that brings its own memory would break the prediction.
		err = errors.New("the load function replaced the window's memory")
	}
	if err != nil {
		w.Pixels, w.Labels = pixels, labels
		return end, fmt.Errorf("load records [%d, %d) of shard %d: %w", p.From, p.To, p.Shard, err)
	}
	s.loaded, s.loadedPart, s.loadedEpoch = index, part, epoch
	return end, nil
}

// arrange has the order of the piece's records at hand.
func (s *Stream) arrange(epoch, index, records int) {
	if s.orderPiece == index && s.orderEpoch == epoch {
		return
	}
	order := s.recordOrder[:records]
	if s.spec.InOrder {
		for i := range order {
			order[i] = uint32(i)
		}
	} else {
		s.order.Records(epoch, index, order)
	}
	s.orderPiece, s.orderEpoch = index, epoch
}
