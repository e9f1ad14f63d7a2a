// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"disdel/internal/store"
	"disdel/internal/store/storetest"
)

func TestContract(t *testing.T) {
	storetest.Run(t, func(t *testing.T) (a, b store.Store) {
		path := t.TempDir()
		t.Cleanup(func() { wantTidy(t, path) }) // Runs once the suite has closed both.
		return open(t, path), open(t, path)
	})
}

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantTidy checks that closed clients left no temporary files and that deletions
// left no empty folders.
func wantTidy(t testing.TB, root string) {
	t.Helper()
	for _, name := range []string{tempName, objectsName, statusName} {
		base := filepath.Join(root, name)
		err := filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				if name == tempName {
					t.Errorf("%s was left, %v", path, err)
				}
				return err
			}
			entries, err := os.ReadDir(path)
			if path != base && len(entries) == 0 {
				t.Errorf("%s was left empty", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestOpen(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "a", "b")
	s := open(t, missing)
	if s.URL() != "dir://"+missing {
		t.Errorf("URL: %s", s.URL())
	}
	scheme, path, err := store.ParseURL(s.URL())
	if err != nil || scheme != store.SchemeDir || path != missing {
		t.Fatalf("the URL is parsed as %q, %q, %v", scheme, path, err)
	}
	put(t, s, "jobs/7/x", []byte("kept"))
	if err := s.SetStatus(t.Context(), "jobs/7/x", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), "jobs/7", store.Head{}, nil); err != nil {
		t.Fatal(err)
	}
	if data, err := get(open(t, path+"/../b/"), "jobs/7/x"); err != nil || string(data) != "kept" {
		t.Errorf("opened again: %q, %v", data, err)
	}
	err = filepath.WalkDir(missing, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if entry.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(missing, link); err != nil {
		t.Fatal(err)
	}
	if data, err := get(open(t, link), "jobs/7/x"); err != nil || string(data) != "kept" {
		t.Errorf("opened through a link: %q, %v", data, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	marked := func(marker string) string {
		path := t.TempDir()
		if err := os.WriteFile(filepath.Join(path, markerName), []byte(marker), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ path, want string }{
		"relative":     {"some/where", "absolute"},
		"empty path":   {"", "absolute"},
		"other folder": {full, `holds "thesis.txt"`},
		"file":         {filepath.Join(full, "thesis.txt"), "a file stands where"},
		"below a file": {filepath.Join(full, "thesis.txt", "x"), "a file stands where"},
		"newer":        {marked("disdel store\nformat 2\n"), "use a newer disdel"},
		"empty marker": {marked(""), "corrupt"},
		"cut marker":   {marked("disdel store\nformat 1"), "corrupt"},
		"version 0":    {marked("disdel store\nformat 0\n"), "corrupt"},
		"other marker": {marked("MZ"), "corrupt"},
	} {
		before, _ := os.ReadDir(test.path)
		_, err := Open(t.Context(), test.path)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
		if after, _ := os.ReadDir(test.path); len(after) != len(before) {
			t.Errorf("%s: the refused folder was changed", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(t.TempDir(), "new")
	if _, err := Open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("open with a cancelled context: %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("open with a cancelled context made the folder")
	}
}

// TestOpenRace opens one missing folder many times at once.
func TestOpenRace(t *testing.T) {
	t.Parallel()
	for range 10 {
		path := filepath.Join(t.TempDir(), "new")
		errs := make(chan error)
		const clients = 16
		for id := range clients {
			go func() {
				s, err := Open(t.Context(), path)
				if err == nil {
					_, err = s.PutIfAbsent(t.Context(), fmt.Sprint(id), func(io.Writer) error { return nil })
				}
				errs <- err
			}()
		}
		for range clients {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		keys, err := open(t, path).List(t.Context(), "")
		if err != nil || len(keys) != clients {
			t.Errorf("%d keys, %v; want %d", len(keys), err, clients)
		}
		if entries, _ := os.ReadDir(path); len(entries) != 5 {
			t.Errorf("the folder holds %v", entries)
		}
	}
}

// TestCheckAccess says whose folders are refused.
func TestCheckAccess(t *testing.T) {
	for name, test := range map[string]struct {
		mode        fs.FileMode
		owner, user int
		want        string
	}{
		"own":            {0o700, 7, 7, ""},
		"readable":       {0o755, 7, 7, ""},
		"read-only":      {0o500, 7, 7, ""},
		"of the group":   {0o770, 7, 7, ""},
		"of the world":   {fs.ModeSticky | 0o777, 7, 7, "mode 0777"},
		"only written":   {0o702, 7, 7, "new folder inside it"},
		"foreign":        {0o755, 8, 7, "another user (8, and this is 7)"},
		"root's":         {0o755, 0, 7, "chown"},
		"foreign, root":  {0o755, 8, 0, ""},
		"writable, root": {0o777, 8, 0, "chmod o-w /s"},
	} {
		err := checkAccess("/s", test.mode, test.owner, test.user)
		if test.want == "" && err == nil {
			continue
		}
		if test.want == "" || !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an ErrDenied with %q", name, err, test.want)
		}
	}
}

// TestOpenWritable opens folders that others can write to, with a store in them
// and without.
func TestOpenWritable(t *testing.T) {
	used := t.TempDir()
	s := open(t, used)
	put(t, s, "k", []byte("kept"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{used, t.TempDir()} {
		before, _ := os.ReadDir(root)
		for _, mode := range []fs.FileMode{0o777, 0o772, 0o702} {
			if err := os.Chmod(root, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), root); !errors.Is(err, store.ErrDenied) || !strings.Contains(err.Error(), "chmod o-w "+root) {
				t.Errorf("mode %v: %v", mode, err)
			}
		}
		if after, _ := os.ReadDir(root); len(after) != len(before) {
			t.Error("the refused folder was changed")
		}
		if err := os.Chmod(root, 0o755); err != nil {
			t.Fatal(err)
		}
		open(t, root)
	}
	if data, err := get(open(t, used), "k"); err != nil || string(data) != "kept" {
		t.Errorf("once refused: %q, %v", data, err)
	}
}

// TestWriterError gives the store's error to the callback, which returns it: it
// is still the store's to explain.
func TestWriterError(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	_, err := s.PutIfAbsent(ctx, "k", func(w io.Writer) error {
		cancel()
		_, err := w.Write([]byte("x"))
		return err
	})
	if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "put k: ") {
		t.Errorf("got %v, want it to name the operation and the key", err)
	}
}

// TestPartGone removes one of the store's own folders.
func TestPartGone(t *testing.T) {
	s := open(t, t.TempDir())
	if err := os.Remove(s.base(objectsName)); err != nil {
		t.Fatal(err)
	}
	_, err := s.PutIfAbsent(t.Context(), "a/b/c", func(io.Writer) error { return nil })
	if !errors.Is(err, store.ErrUnavailable) || exists(s.base(objectsName)) {
		t.Errorf("put without the folder of objects: %v, made again: %v", err, exists(s.base(objectsName)))
	}
}

// TestGone takes the whole store away, as an unmount does: it must not look
// empty, and must not be made again.
func TestGone(t *testing.T) {
	root := filepath.Join(t.TempDir(), "s")
	ctx := t.Context()
	for _, used := range []bool{true, false} {
		s := open(t, root)
		head := store.Head{}
		if used {
			put(t, s, "k", []byte("k"))
			var err error
			if head, err = s.Append(ctx, "k", head, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.RemoveAll(root); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(root, 0o700); err != nil { // The mount point that is left.
			t.Fatal(err)
		}
		wantUnavailable(t, s, head)
		if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
			t.Fatalf("the mount point was written to: %v, %v", entries, err)
		}
	}
}

func wantUnavailable(t *testing.T, s *Store, head store.Head) {
	t.Helper()
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"put new": func() error {
			_, err := s.PutIfAbsent(ctx, "new/k", func(io.Writer) error { return nil })
			return err
		},
		"get new":        func() error { _, err := s.Get(ctx, "new/k"); return err },
		"list":           func() error { _, err := s.List(ctx, ""); return err },
		"list new/":      func() error { _, err := s.List(ctx, "new/"); return err },
		"delete new":     func() error { return s.Delete(ctx, "new/k") },
		"flush new":      func() error { return s.Flush(ctx, "new/k") },
		"set status new": func() error { return s.SetStatus(ctx, "new/k", []byte("x")) },
		"remove status":  func() error { return s.SetStatus(ctx, "new/k", nil) },
		"status":         func() error { _, err := s.Status(ctx, "new/k"); return err },
		"append new":     func() error { _, err := s.Append(ctx, "new/k", store.Head{}, nil); return err },
		"append k":       func() error { _, err := s.Append(ctx, "k", head, nil); return err },
		"log new":        func() error { _, err := s.Log(ctx, "new/k", store.Head{}); return err },
		"log k":          func() error { _, err := s.Log(ctx, "k", head); return err },
		"logs":           func() error { _, err := s.Logs(ctx, ""); return err },
		"size":           func() error { _, err := s.Size(ctx, ""); return err },
	} {
		err := call()
		if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrConflict) {
			t.Errorf("%s: %v, want ErrUnavailable alone", name, err)
		} else if !strings.Contains(err.Error(), s.root) {
			t.Errorf("%s: %v does not name the path", name, err)
		}
	}
}

// TestExplain lists what an error of the operating system becomes.
func TestExplain(t *testing.T) {
	for errno, test := range map[syscall.Errno]struct {
		advice string
		class  error
	}{
		syscall.ENOSPC: {"free space", store.ErrUnavailable}, syscall.EDQUOT: {"quota", store.ErrUnavailable},
		syscall.EIO: {"disk", store.ErrUnavailable}, syscall.ENOENT: {"mounted", store.ErrUnavailable},
		syscall.EMFILE: {"ulimit", store.ErrUnavailable}, syscall.EROFS: {"writable", store.ErrDenied},
		syscall.EACCES: {"right", store.ErrDenied}, syscall.EPERM: {"hard links", store.ErrDenied},
		syscall.ENOTSUP: {"hard links", store.ErrDenied}, syscall.ENOTDIR: {"file stands", store.ErrDenied},
	} {
		err := explain("put", "jobs/7/x", &fs.PathError{Op: "write", Path: "/s/tmp/1", Err: errno})
		if !errors.Is(err, test.class) || !errors.Is(err, errno) || errors.Is(err, store.ErrUnavailable) && errors.Is(err, store.ErrDenied) {
			t.Errorf("%v: %v is not %v and itself", errno, err, test.class)
		}
		for _, want := range []string{"put jobs/7/x: write /s/tmp/1: ", test.advice} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: %v has no %q", errno, err, want)
			}
		}
	}
	for _, err := range []error{syscall.ENAMETOOLONG, syscall.ELOOP, context.Canceled, store.ErrCorrupt, store.ErrClosed} {
		if got := explain("put", "k", err); !errors.Is(got, err) || errors.Is(got, store.ErrUnavailable) {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}

// TestForeign puts files in the store that are not the store's: they are passed
// over and left alone.
func TestForeign(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "jobs/7/x", []byte("x"))
	for _, name := range []string{
		"objects/.DS_Store", "objects/jobs/7/x", "objects/jobs/7/X@", "objects/jobs/.nfs@", "objects/@", "objects/jobs/a b@",
		"objects/ab+/c@", "status/x~", "logs/jobs@/x", "logs/jobs@/00000001.tmp", "tmp/file", "readme.txt",
	} {
		path := filepath.Join(s.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("foreign"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(s.root, "objects/folder@"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.root, "logs/file@"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, s.root)
	if keys, err := s.List(t.Context(), ""); err != nil || len(keys) != 1 {
		t.Errorf("list: %q, %v", keys, err)
	}
	if logs, err := s.Logs(t.Context(), ""); err != nil || len(logs) != 0 {
		t.Errorf("logs: %q, %v", logs, err)
	}
	if err := s.Delete(t.Context(), "jobs/7/x"); err != nil {
		t.Error(err)
	}
	if !exists(filepath.Join(s.root, "objects/jobs/7/x")) {
		t.Error("a foreign file was deleted")
	}
}

// TestMemoryBound writes and reads an object of many frames and counts the bytes
// allocated for it.
func TestMemoryBound(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "warm", nil)
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<16/16)
	const pieces = 256
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := s.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		for range pieces {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	buffer := make([]byte, 4096)
	for err == nil {
		_, err = r.Read(buffer)
	}
	runtime.ReadMemStats(&after)
	if err != io.EOF { //nolint:errorlint // io.Reader wants it bare.
		t.Fatal(err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4*bufferBytes {
		t.Errorf("%d bytes allocated to put and get %d", got, pieces*len(piece))
	}
}
