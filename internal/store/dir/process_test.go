// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"disdel/internal/points"
	"disdel/internal/store"
)

// childRole makes the test binary one of the processes below instead.
const childRole = "DISDEL_DIR_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		if err := child(role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	syscall.Umask(0o022) // Folders that others can write to are no stores.
	if err := points.Checks(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const childEntries = 30

func child(role, root string) error {
	ctx := context.Background()
	s, err := Open(ctx, root)
	if err != nil {
		return err
	}
	switch role {
	case "die in put":
		_, err = s.PutIfAbsent(ctx, "jobs/7/x", func(w io.Writer) error {
			if _, err := w.Write(make([]byte, 3*frameBytes+10)); err != nil {
				return err
			}
			return die()
		})
		return fmt.Errorf("survived: %w", err)
	case "die after put":
		if _, err = s.PutIfAbsent(ctx, "jobs/7/x", func(w io.Writer) error {
			_, err := w.Write([]byte("whole"))
			return err
		}); err != nil {
			return err
		}
		return die()
	default:
		return errors.Join(appendMany(ctx, s, role), s.Close())
	}
}

func die() error {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		return err
	}
	select {}
}

// appendMany appends entries against other processes, and creates each of many
// objects that the others also try to create.
func appendMany(ctx context.Context, s *Store, role string) error {
	head := store.Head{}
	for i := range childEntries {
		payload := fmt.Appendf(nil, "%s %d", role, i)
		for {
			next, err := s.Append(ctx, "jobs/log", head, payload)
			if err == nil {
				head = next
				break
			}
			if !errors.Is(err, store.ErrConflict) {
				return err
			}
			entries, err := s.Log(ctx, "jobs/log", head)
			if err != nil {
				return err
			}
			if len(entries) > 0 {
				head = entries[len(entries)-1].Head
			}
		}
		created, err := s.PutIfAbsent(ctx, fmt.Sprintf("jobs/k%d", i), func(w io.Writer) error {
			_, err := w.Write([]byte(role))
			return err
		})
		if err != nil {
			return err
		}
		if created {
			if err := s.SetStatus(ctx, fmt.Sprintf("jobs/k%d", i), []byte(role)); err != nil {
				return err
			}
		}
	}
	return nil
}

func start(t *testing.T, role, root string) (wait func() (string, error)) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, root)
	cmd.Env = append(os.Environ(), childRole+"="+role, points.NoSleep())
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (string, error) {
		err := cmd.Wait()
		return output.String(), err
	}
}

// TestTwoProcesses lets three processes append to one log and put the same keys.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	roles := []string{"one", "two", "three"}
	var waits []func() (string, error)
	for _, role := range roles {
		waits = append(waits, start(t, role, root))
	}
	for i, wait := range waits {
		if output, err := wait(); err != nil {
			t.Fatalf("process %s: %v: %s", roles[i], err, output)
		}
	}
	s := open(t, root)
	entries, err := s.Log(t.Context(), "jobs/log", store.Head{})
	if err != nil || len(entries) != len(roles)*childEntries {
		t.Fatalf("%d entries, %v; want %d", len(entries), err, len(roles)*childEntries)
	}
	next := map[string]int{}
	for _, entry := range entries {
		role, number, _ := strings.Cut(string(entry.Payload), " ")
		if number != fmt.Sprint(next[role]) {
			t.Fatalf("entry %q out of order, want number %d", entry.Payload, next[role])
		}
		next[role]++
	}
	for i := range childEntries {
		key := fmt.Sprintf("jobs/k%d", i)
		object, err := get(s, key)
		creator, statusErr := s.Status(t.Context(), key)
		if err = errors.Join(err, statusErr); err != nil || !bytes.Equal(object, creator) {
			t.Errorf("%s was made by %q but holds %q, %v", key, creator, object, err)
		}
	}
	wantTidy(t, root)
}

// TestKilled kills a process while it writes and just after.
func TestKilled(t *testing.T) {
	t.Parallel()
	for role, want := range map[string]bool{"die in put": false, "die after put": true} {
		root := t.TempDir()
		output, err := start(t, role, root)()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: %v, want it killed: %s", role, err, output)
		}
		left := func() int {
			entries, err := os.ReadDir(filepath.Join(root, tempName))
			if err != nil {
				t.Fatal(err)
			}
			return len(entries)
		}
		if left() != 1 {
			t.Errorf("%s: the dead process left %d folders, want 1", role, left())
		}
		s := open(t, root)
		if left() != 0 {
			t.Errorf("%s: what the dead process left was not swept", role)
		}
		data, err := get(s, "jobs/7/x")
		switch {
		case want && (err != nil || string(data) != "whole"):
			t.Errorf("%s: %q, %v; want the object", role, data, err)
		case !want && !errors.Is(err, store.ErrNotFound):
			t.Errorf("%s: %d bytes, %v; want no object", role, len(data), err)
		}
	}
}
