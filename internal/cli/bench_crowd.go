// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"disdel/internal/bench"
	"disdel/internal/job"
	"disdel/internal/platform/openwhisk"
	"disdel/internal/worker"
)

const (
	// maxAtOnce bounds the calls at once; each has a connection of its own.
	maxAtOnce = 1000
	// crowdTimeout bounds a call, queueing included, crowdAnswer what it answers.
	crowdTimeout = 2 * time.Minute
	crowdAnswer  = 1 << 20
)

// served is a server in a process of its own.
type served struct {
	address, user, secret string
	client                *http.Client
}

// timeCrowd makes many calls at once to a server.
func (a *app) timeCrowd(ctx context.Context, b *benchPlatformOptions, folder string) (_ *bench.Crowd, err error) {
	self, err := a.program()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	keys := filepath.Join(folder, "keys")
	ctx, end := context.WithCancel(ctx)
	defer end()
	cmd := exec.CommandContext(ctx, self, "platform", "serve", "--listen", "127.0.0.1:0", "--key-file", keys,
		"--concurrent", strconv.Itoa(b.atOnce), "--per-minute", strconv.Itoa(2*b.atOnce*b.times))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = benchGrace
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	defer func() {
		end() // which bounds how long the server takes for it
		if ended := cmd.Wait(); err != nil && ended != nil {
			err = fmt.Errorf("%w; the server said: %s", err, printable(strings.TrimSpace(stderr.String())))
		}
	}()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, fmt.Errorf("the server did not start: %w", err)
	}
	s := &served{address: strings.TrimSpace(line), client: &http.Client{
		Timeout: crowdTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: b.atOnce},
	}}
	defer s.client.CloseIdleConnections()
	if err := s.readKey(keys); err != nil {
		return nil, err
	}
	action := map[string]any{
		"exec":       map[string]string{"kind": "blackbox", "image": workerImage},
		"parameters": []map[string]any{{"key": worker.StoreEnv, "value": "dir://" + filepath.Join(folder, "served"), "init": true}},
	}
	if status, body, err := s.ask(ctx, http.MethodPut, "/api/v1/namespaces/_/actions/nothing", action); err != nil {
		return nil, fmt.Errorf("make an action: %w", err)
	} else if status != http.StatusOK {
		return nil, fmt.Errorf("make an action: status %d, %s", status, printable(string(body)))
	}
	return s.crowd(ctx, b)
}

func (s *served) readKey(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("key of the server: %w", err)
	}
	defer file.Close()
	props, err := openwhisk.ParseProperties(file)
	if err != nil {
		return fmt.Errorf("key of the server: %w", err)
	}
	s.user, s.secret, _ = strings.Cut(props.Key, ":")
	return nil
}

func (s *served) ask(ctx context.Context, method, path string, body any) (status int, answer []byte, err error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the server: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.address+path, bytes.NewReader(raw))
	if err != nil {
		return 0, nil, fmt.Errorf("ask the server: %w", err)
	}
	req.SetBasicAuth(s.user, s.secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the server: %w", err)
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, crowdAnswer))
	return resp.StatusCode, answer, err
}

// crowd makes the calls, and looks at the server's memory before and after.
func (s *served) crowd(ctx context.Context, b *benchPlatformOptions) (*bench.Crowd, error) {
	c := &bench.Crowd{AtOnce: b.atOnce}
	var mu sync.Mutex
	var all []time.Duration
	for range b.times {
		if err := s.weigh(ctx, c); err != nil {
			return nil, err
		}
		var calls sync.WaitGroup
		for range b.atOnce {
			calls.Go(func() {
				began := time.Now()
				status, body, err := s.ask(ctx, http.MethodPost, "/api/v1/namespaces/_/actions/nothing?blocking=true&result=true", job.Task{Role: job.RoleNothing})
				took := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && status == http.StatusOK:
					all = append(all, took)
				case err == nil && status == http.StatusTooManyRequests:
					c.Throttled++
				default:
					c.Failed++
					if c.Error = fmt.Sprintf("status %d: %.200s", status, body); err != nil {
						c.Error = err.Error()
					}
				}
			})
		}
		calls.Wait()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	c.Latency = bench.Latencies(all)
	return c, s.weigh(ctx, c)
}

// residentMetric is Prometheus's own name for it.
const residentMetric = "process_resident_memory_bytes "

// weigh notes the server's resident memory.
func (s *served) weigh(ctx context.Context, c *bench.Crowd) error {
	_, body, err := s.ask(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(body)) {
		if text, ok := strings.CutPrefix(line, residentMetric); ok {
			bytes, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				return fmt.Errorf("memory of the server: %w", err)
			}
			c.Memory = append(c.Memory, job.Bytes(bytes))
			return nil
		}
	}
	return errors.New("the server does not tell its memory")
}
