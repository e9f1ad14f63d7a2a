// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"disdel/internal/store"
)

// withoutOverride runs do on a thread for which permission bits count, also when
// the user is root. The thread ends with it.
func withoutOverride(t *testing.T, do func()) {
	t.Helper()
	const (
		version3      = 0x20080522
		dacOverride   = 1 << 1
		dacReadSearch = 1 << 2
		thisThread    = 0
	)
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		runtime.LockOSThread() // Never unlocked, so that the thread is not used again.
		header := struct {
			version uint32
			pid     int32
		}{version3, thisThread}
		var data [2]struct{ effective, permitted, inheritable uint32 }
		pointers := [2]uintptr{uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data))}
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPGET, pointers[0], pointers[1], 0); errno != 0 {
			failed <- errno
			return
		}
		data[0].effective &^= dacOverride | dacReadSearch
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CAPSET, pointers[0], pointers[1], 0); errno != 0 {
			failed <- errno
			return
		}
		runtime.KeepAlive(&header)
		runtime.KeepAlive(&data)
		do()
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

func setModes(t *testing.T, root string, mode fs.FileMode) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(path, mode)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestReadOnly opens a store in which nothing may be written: it can be read,
// and writing says what to do.
func TestReadOnly(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	put(t, s, "jobs/7/x", []byte("kept"))
	head, err := s.Append(t.Context(), "jobs/7", store.Head{}, []byte("entry"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, objectsName, "empty"), 0o700); err != nil { // For Sweep to fail at.
		t.Fatal(err)
	}
	setModes(t, root, 0o500)
	defer setModes(t, root, 0o700)
	withoutOverride(t, func() {
		s, err := Open(t.Context(), root)
		if err != nil {
			t.Error(err)
			return
		}
		if data, err := get(s, "jobs/7/x"); err != nil || string(data) != "kept" {
			t.Errorf("get: %q, %v", data, err)
		}
		if entries, err := s.Log(t.Context(), "jobs/7", store.Head{}); err != nil || len(entries) != 1 {
			t.Errorf("log: %d entries, %v", len(entries), err)
		}
		_, putErr := s.PutIfAbsent(t.Context(), "jobs/7/y", func(io.Writer) error { return nil })
		_, appendErr := s.Append(t.Context(), "jobs/7", head, nil)
		for name, err := range map[string]error{
			"put":        putErr,
			"append":     appendErr,
			"set status": s.SetStatus(t.Context(), "jobs/7", []byte("x")),
			"delete":     s.Delete(t.Context(), "jobs/7/x"),
			"sweep":      s.Sweep(t.Context()),
		} {
			if !errors.Is(err, store.ErrDenied) || errors.Is(err, store.ErrUnavailable) || !errors.Is(err, fs.ErrPermission) ||
				!strings.Contains(err.Error(), root) || !strings.Contains(err.Error(), "give this user the right") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := Open(t.Context(), filepath.Join(root, "new")); !errors.Is(err, store.ErrDenied) {
			t.Errorf("a new store in a read-only folder: %v", err)
		}
	})
}
