// SPDX-License-Identifier: Apache-2.0

package nn

import "fmt"

// Arena is memory for one instance, outside the Go heap where the platform
// allows it: the collector neither counts nor scans it, and Close gives it back
// at once. On Linux it is one anonymous mapping without huge pages, so that
// resident memory is what was touched and no more.
type Arena struct {
	bytes []byte
	unmap func() error
}

// maxArenaBytes is more than any program can use on the machines this is for.
// Without a bound the fallback below would end the process.
const maxArenaBytes = 1 << 40

// NewArena returns an arena of n > 0 zero bytes, aligned to 64 bytes at least.
func NewArena(n int) (*Arena, error) {
	if n <= 0 || int64(n) > maxArenaBytes {
		return nil, fmt.Errorf("%w: arena of %d bytes, not in 1..%d", ErrInput, n, int64(maxArenaBytes))
	}
	b, unmap, err := mapBytes(n)
	if err != nil {
		return nil, fmt.Errorf("nn: map arena of %d bytes: %w", n, err)
	}
	return &Arena{bytes: b[:n:n], unmap: unmap}, nil
}

// Bytes returns the arena's memory, exactly the n bytes asked for; nil after
// Close.
func (a *Arena) Bytes() []byte { return a.bytes }

// Close gives the memory back. No view into it may be used afterwards: that
// would be a fault, not an error. A second Close does nothing.
func (a *Arena) Close() error {
	if a.bytes == nil {
		return nil
	}
	a.bytes = nil
	if err := a.unmap(); err != nil {
		return fmt.Errorf("nn: unmap arena: %w", err)
	}
	return nil
}
