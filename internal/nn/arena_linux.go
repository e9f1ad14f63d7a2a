// SPDX-License-Identifier: Apache-2.0

package nn

import "syscall"

func mapBytes(n int) ([]byte, func() error, error) {
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return nil, nil, err
	}
	// A huge page would make two megabytes resident for one touched byte, which
	// no prediction could foresee. A kernel without huge pages answers EINVAL,
	// and then there is nothing to forbid.
	_ = syscall.Madvise(b, syscall.MADV_NOHUGEPAGE)
	return b, func() error { return syscall.Munmap(b) }, nil
}
