// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forget takes a file out of the kernel's cache of files, which is possible while no
// process has it mapped. gone says that nothing of it is there any more.
func forget(path string) (gone bool, err error) {
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("forget %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err == nil, err
	}
	// What is not on the disk yet cannot be forgotten.
	if err := file.Sync(); err != nil {
		return false, fmt.Errorf("forget: %w", err)
	}
	if err := unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return false, fmt.Errorf("forget %s: %w", path, err)
	}
	mapped, err := unix.Mmap(int(file.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return false, fmt.Errorf("forget %s: map: %w", path, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(mapped)) }()
	page := os.Getpagesize()
	resident := make([]byte, (len(mapped)+page-1)/page)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(unsafe.SliceData(mapped))), uintptr(len(mapped)),
		uintptr(unsafe.Pointer(unsafe.SliceData(resident)))); errno != 0 {
		return false, fmt.Errorf("forget %s: mincore: %w", path, errno)
	}
	for _, here := range resident {
		if here&1 != 0 {
			return false, nil
		}
	}
	return true, nil
}

// reread makes the kernel's cache of a program what it is once the program's file has
// been read after a restart of the machine: in large pieces, of which more becomes
// resident with every fault than of a file that was just written, in all a sixth of a
// worker. lasting says that later runs find the same; a program that runs now cannot be
// forgotten.
func reread(path string) (lasting bool, err error) {
	gone, err := forget(path)
	if err != nil {
		return false, err
	}
	if gone {
		_, err := fileDigest(path)
		return err == nil, err
	}
	var system unix.Statfs_t
	if err := unix.Statfs(path, &system); err != nil {
		return false, fmt.Errorf("file system of %s: %w", path, err)
	}
	return system.Type == unix.TMPFS_MAGIC, nil // there is no disk to read it from
}
