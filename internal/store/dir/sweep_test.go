// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"disdel/internal/store"
)

// age sets the times of everything at and below path back by more than staleAge.
func age(t *testing.T, path string) {
	t.Helper()
	then := time.Now().Add(-2 * staleAge)
	var paths []string
	err := filepath.WalkDir(path, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	for _, path := range paths {
		err = errors.Join(err, os.Chtimes(path, then, then))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// TestSweep leaves a client of another machine dead between a complete temporary
// file and its link, as a crash would.
func TestSweep(t *testing.T) {
	root := t.TempDir()
	dead, live := open(t, root), open(t, root)
	temp := func(s *Store) string {
		path, _, err := s.writeTemp(t.Context(), kindObject, "jobs/7/x", false, func(w io.Writer) error {
			_, err := w.Write([]byte("complete"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	deadTemp, liveTemp := temp(dead), temp(live)
	elsewhere(t, dead)
	if err := dead.scratch.lock.Close(); err != nil { // What the end of a process does.
		t.Fatal(err)
	}
	lockless := filepath.Join(root, tempName, "lockless")
	if err := os.Mkdir(lockless, 0o700); err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(root, markerTemp+"x")
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all := []string{deadTemp, liveTemp, lockless, marker}
	check := func(what string, want ...bool) {
		t.Helper()
		open(t, root)
		for i, path := range all {
			if exists(path) != want[i] {
				t.Errorf("%s: %s exists: %v, want %v", what, path, !want[i], want[i])
			}
		}
	}
	check("all are young", true, true, true, true)
	age(t, filepath.Join(root, tempName))
	now := time.Now()
	if err := os.Chtimes(deadTemp, now, now); err != nil {
		t.Fatal(err)
	}
	age(t, marker)
	check("the dead client's file is young", true, true, false, false)
	age(t, filepath.Join(root, tempName))
	check("all are old", false, true, false, false)
	if exists(filepath.Dir(deadTemp)) {
		t.Error("the dead client's folder was left")
	}

	s := open(t, root)
	if keys, err := s.List(t.Context(), ""); err != nil || len(keys) != 0 {
		t.Errorf("keys of puts that never ended: %q, %v", keys, err)
	}
	put(t, s, "jobs/7/x", []byte("again"))
}

// elsewhere makes the lock of a client that of another machine.
func elsewhere(t *testing.T, s *Store) {
	t.Helper()
	if err := s.scratch.lock.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.scratch.lock.WriteAt([]byte("host other.example\nboot 1\n"), 0); err != nil {
		t.Fatal(err)
	}
}

// TestSweepHere sweeps young folders: only those of dead clients of this boot of
// this machine go.
func TestSweepHere(t *testing.T) {
	for name, sweeping := range map[string]func(root string, s *Store) error{
		"open":  func(root string, _ *Store) error { _, err := Open(t.Context(), root); return err },
		"close": func(_ string, s *Store) error { return s.Close() },
		"sweep": func(_ string, s *Store) error {
			sweeper, ok := store.As[store.Sweeper](store.WithRetry(s, store.RetryPolicy{}))
			if !ok {
				return errors.New("no sweeper")
			}
			return sweeper.Sweep(t.Context())
		},
	} {
		root := t.TempDir()
		clients := map[string]*Store{}
		for _, client := range []string{"dead here", "dead elsewhere", "dead without a record", "live here", "live without a record", "sweeping"} {
			s := open(t, root)
			put(t, s, strings.ReplaceAll(client, " ", "-"), nil) // Makes the folder.
			clients[client] = s
		}
		elsewhere(t, clients["dead elsewhere"])
		for client, s := range clients {
			var err error
			if strings.HasSuffix(client, "without a record") {
				err = s.scratch.lock.Truncate(0)
			}
			if strings.HasPrefix(client, "dead") {
				err = errors.Join(err, s.scratch.lock.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		scratches := map[string]string{}
		for client, s := range clients {
			scratches[client] = s.scratch.folder
		}
		// Clients before they hold their locks.
		for _, client := range []string{"lockless", "unlocked"} {
			scratches[client] = filepath.Join(root, tempName, client)
			if err := os.Mkdir(scratches[client], 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(scratches["unlocked"], lockName), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := sweeping(root, clients["sweeping"]); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for client, folder := range scratches {
			want := client != "dead here" && (client != "sweeping" || name != "close")
			if exists(folder) != want {
				t.Errorf("%s: the folder of %q is left: %v, want %v", name, client, !want, want)
			}
		}
		if err := clients["live here"].SetStatus(t.Context(), "k", []byte("k")); err != nil {
			t.Errorf("%s: a live client cannot write: %v", name, err)
		}
	}
}

// TestPrune leaves the folders of a client that died before it put something in
// them.
func TestPrune(t *testing.T) {
	s := open(t, t.TempDir())
	long := strings.Repeat("l", partBytes)
	put(t, s, "jobs/7/kept", nil)
	gone := []string{
		"objects/jobs/7/r0/part", "objects/jobs/8", "objects/" + long + "+/.l", "status/jobs/7", "logs/jobs/8@", "logs/a/b",
	}
	kept := []string{"objects/.snapshot", "objects/jobs/.snapshot/a", "objects/folder@", "objects/A", "logs/Log@", "objects/jobs/7"}
	for _, path := range append(gone, kept...) {
		if err := os.MkdirAll(filepath.Join(s.root, path), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(s.root, "objects/link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	for _, path := range append(gone, "objects/jobs/7/r0", "objects/"+long+"+", "status/jobs", "logs/jobs", "logs/a") {
		if exists(filepath.Join(s.root, path)) {
			t.Errorf("%s was left", path)
		}
	}
	for _, path := range append(kept, "objects/link", "objects", "status", "logs", tempName, "objects/jobs/7/kept@") {
		if !exists(filepath.Join(s.root, path)) {
			t.Errorf("%s was removed", path)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Sweep(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("sweep with a cancelled context: %v", err)
	}
	if err := errors.Join(s.Close(), os.RemoveAll(s.root)); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("sweep of a closed client: %v", err)
	}
}

// TestDeleteKeepsLink: what Delete leaves empty goes, a link to it does not.
func TestDeleteKeepsLink(t *testing.T) {
	s := open(t, t.TempDir())
	link := filepath.Join(s.base(objectsName), "jobs")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	put(t, s, "jobs/7/x", nil)
	if err := s.Delete(t.Context(), "jobs/7/x"); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(link, "7")) || !exists(link) {
		t.Error("want the folder removed and the link kept")
	}
}

// TestPruneRace sweeps all the while that clients write: none loses anything.
func TestPruneRace(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	sweeper, writer := open(t, root), open(t, root)
	done := make(chan struct{})
	swept := make(chan error)
	go func() {
		for {
			select {
			case <-done:
				swept <- nil
				return
			default:
				if err := sweeper.Sweep(context.Background()); err != nil {
					swept <- err
					return
				}
			}
		}
	}()
	ctx := t.Context()
	for i := range 50 {
		key := fmt.Sprintf("jobs/%d/r/x", i)
		put(t, writer, key, []byte("x"))
		_, err := writer.Append(ctx, key, store.Head{}, []byte("x"))
		err = errors.Join(err, writer.SetStatus(ctx, key, []byte("x")))
		if data, getErr := get(writer, key); err != nil || getErr != nil || string(data) != "x" {
			t.Errorf("%s: %q, %v, %v", key, data, getErr, err)
			break
		}
		if err := errors.Join(writer.Delete(ctx, key), writer.SetStatus(ctx, key, nil)); err != nil {
			t.Error(err)
			break
		}
	}
	close(done)
	if err := <-swept; err != nil {
		t.Error(err)
	}
	if err := errors.Join(sweeper.Close(), writer.Close()); err != nil {
		t.Error(err)
	}
	wantTidy(t, root)
}

// TestSwept takes a client's temporary folder away while it lives, as a machine
// could with which it shares files but no locks.
func TestSwept(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "a", []byte("a"))
	removeScratch(s.scratch.folder)
	put(t, s, "b", []byte("b"))
	_, err := s.PutIfAbsent(t.Context(), "c", func(io.Writer) error {
		removeScratch(s.scratch.folder)
		return nil
	})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put whose file was taken: %v, want ErrUnavailable", err)
	}
	err = s.SetStatus(t.Context(), "c", []byte("c"))
	if err != nil {
		t.Error(err)
	}
	put(t, s, "c", []byte("c"))

	_, err = s.PutIfAbsent(t.Context(), "d", func(io.Writer) error { return s.Close() })
	if !errors.Is(err, store.ErrClosed) {
		t.Errorf("put over a close: %v, want ErrClosed", err)
	}
	wantTidy(t, s.root)
}

// TestSweepRace sweeps while clients make their temporary folders, at a time at
// which all of them look old.
func TestSweepRace(t *testing.T) {
	t.Parallel()
	root := open(t, t.TempDir()).root
	done := make(chan struct{})
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		for {
			select {
			case <-done:
				return
			default:
				_ = sweep(t.Context(), root, time.Now().Add(2*staleAge))
			}
		}
	}()
	made := 0
	for range 300 {
		c, err := openScratch(root)
		if errors.Is(err, fs.ErrNotExist) {
			continue // Lost each of its tries.
		}
		if err != nil {
			t.Error(err)
			break
		}
		made++
		if !exists(c.lock.Name()) {
			t.Error("a sweep took the folder of a client that holds its lock")
		}
		c.close()
	}
	close(done)
	<-swept
	if made == 0 {
		t.Error("no client could make its folder")
	}
	wantTidy(t, root)
}
