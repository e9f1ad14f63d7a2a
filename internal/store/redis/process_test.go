// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"disdel/internal/points"
	"disdel/internal/store"
)

// childRole makes the test binary one of the processes below instead.
const childRole = "DISDEL_REDIS_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childRole); role != "" {
		if err := child(role, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const childEntries = 30

// child appends entries against other processes, and creates each of many
// objects that the others also try to create.
func child(role, url string) error {
	ctx := context.Background()
	a, err := ParseAddress(url)
	if err != nil {
		return err
	}
	s, err := Open(ctx, a)
	if err != nil {
		return err
	}
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
		key := fmt.Sprintf("jobs/k%d", i)
		created, err := s.PutIfAbsent(ctx, key, writing([]byte(strings.Repeat(role, 100_000))))
		if err == nil && created {
			err = s.SetStatus(ctx, key, []byte(role))
		}
		if err != nil {
			return err
		}
	}
	return s.Close()
}

// TestTwoProcesses lets three processes append to one log and put the same keys.
func TestTwoProcesses(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		url := server.fresh()
		binary, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		roles := []string{"one", "two", "six"}
		outputs := make([]bytes.Buffer, len(roles))
		var cmds []*exec.Cmd
		for i, role := range roles {
			cmd := exec.CommandContext(t.Context(), binary, url)
			cmd.Env = append(os.Environ(), childRole+"="+role, points.NoSleep())
			cmd.Stdout, cmd.Stderr = &outputs[i], &outputs[i]
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			cmds = append(cmds, cmd)
		}
		for i, cmd := range cmds {
			if err := cmd.Wait(); err != nil {
				t.Errorf("process %s: %v: %s", roles[i], err, &outputs[i])
			}
		}
		s := open(t, url)
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
			object, err := get(t.Context(), s, key)
			creator, statusErr := s.Status(t.Context(), key)
			if err = errors.Join(err, statusErr); err != nil || string(object) != strings.Repeat(string(creator), 100_000) {
				t.Errorf("%s was made by %q but holds %d bytes of %.3q, %v", key, creator, len(object), object, err)
			}
		}
		wantTidy(t, url)
	})
}

// TestIdle: an idle client has no connection, and one that is used again has.
func TestIdle(t *testing.T) {
	onEach(t, func(t *testing.T, server *server) {
		s := open(t, server.fresh())
		put(t, s, "k", bytes.Repeat([]byte("x"), 2*chunkBytes))
		r, err := s.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, chunkBytes)
		for range 2 {
			if _, err := io.ReadFull(r, buffer); err != nil {
				t.Fatal(err)
			}
			s.Idle()
			if s.client != nil {
				t.Error("an idle client keeps its connections")
			}
		}
		if _, err := io.ReadFull(r, buffer); !errors.Is(err, io.EOF) {
			t.Errorf("at the end: %v", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		_, err = s.PutIfAbsent(t.Context(), "j", func(io.Writer) error {
			_, err := call(t.Context(), s, func(context.Context, *goredis.Client) (int, error) {
				s.Idle()
				return 0, nil
			})
			if s.client == nil {
				t.Error("Idle disturbs a call in progress")
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if _, ok := store.As[store.Idler](store.WithRetry(s, store.RetryPolicy{})); !ok {
			t.Error("the ability is not found under the decorator")
		}
	})
}
