// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// pushOut starts to write what is from sent to written, and waits for what is from
// done to sent, which was started earlier. File systems that cannot are let be.
func pushOut(file *os.File, done, sent, written int64) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SyncFileRange(int(fd), sent, written-sent, unix.SYNC_FILE_RANGE_WRITE)
		if failed == nil && sent > done {
			failed = unix.SyncFileRange(int(fd), done, sent-done,
				unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
		}
	})
	// A failed write is one of the others; these say that the call cannot be made here.
	none := []error{unix.ENOSYS, unix.EINVAL, unix.ESPIPE, unix.EPERM, unix.ENOTSUP}
	if failed != nil && !slices.ContainsFunc(none, func(no error) bool { return errors.Is(failed, no) }) {
		return &os.PathError{Op: "sync_file_range", Path: file.Name(), Err: failed}
	}
	return err
}
