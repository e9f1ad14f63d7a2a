// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestForget(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if gone, err := forget(path); gone || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no file: %v, %v", gone, err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if gone, err := forget(path); !gone || err != nil {
		t.Errorf("of an empty file: %v, %v", gone, err)
	}
	if err := os.WriteFile(path, make([]byte, 100_000), 0o600); err != nil {
		t.Fatal(err)
	}
	var kind unix.Statfs_t
	if err := unix.Statfs(path, &kind); err != nil {
		t.Fatal(err)
	}
	gone, err := forget(path)
	if err != nil || gone == (kind.Type == unix.TMPFS_MAGIC) { // there is no other place for it there
		t.Errorf("of a file in a file system of type %#x: %v, %v", kind.Type, gone, err)
	}
}
