// SPDX-License-Identifier: Apache-2.0

package kernel

const (
	// peakChains is how many vectors a round of the assembly multiplies and adds.
	peakChains = 12
	// peakRounds is how many rounds follow each other without a chance for the
	// scheduler: less than a millisecond.
	peakRounds = 1 << 15
)

// Peak multiplies and adds in registers alone for less than a millisecond, with the
// widest vectors of this processor, and returns the number of floating point
// operations. No kernel can compute more in the same time. It is 0 where there is no
// assembly.
func Peak() (operations int64) {
	lanes := peakLanes()
	switch lanes {
	case 0:
		return 0
	case 16:
		peak16(peakRounds)
	default:
		peak8(peakRounds)
	}
	return 2 * peakRounds * peakChains * int64(lanes)
}
