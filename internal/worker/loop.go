// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"disdel/internal/job"
)

// ackEnv is set where an ActionLoop proxy waits for a first line.
const ackEnv = "__OW_WAIT_FOR_ACK"

// loopDescriptor is the descriptor to which an ActionLoop program answers.
const loopDescriptor = 3

// serveLoop speaks ActionLoop, the protocol of OpenWhisk's Go runtimes: a proxy
// serves the action interface, starts this program at /init with the init-only
// parameters as its environment, writes the body of each /run to its standard
// input as one line, and reads one line from descriptor 3. The proxy also ends
// the logs.
func serveLoop(ctx context.Context) error {
	answers := os.NewFile(loopDescriptor, "answers")
	if answers == nil {
		return fmt.Errorf("descriptor %d is not open: started by an ActionLoop proxy, it would be", loopDescriptor)
	}
	w, err := prepare(Config{Peak: func() job.Bytes { return ownPeak() + proxyPeak() }})
	if err != nil {
		return err
	}
	url := os.Getenv(StoreEnv)
	if err := os.Unsetenv(StoreEnv); err != nil {
		return fmt.Errorf("%s: %w", StoreEnv, err)
	}
	done := make(chan error, 1)
	go func() { done <- errors.Join(w.loop(ctx, url, os.Getenv(ackEnv) != "", os.Stdin, answers), w.Close()) }()
	select {
	case err := <-done:
		return errors.Join(err, answers.Close())
	case <-ctx.Done():
		// Nothing ends a read of standard input but the end of the process.
		return errors.New("asked to end")
	}
}

// proxyPeak is the high-water mark of the proxy, which shares the container and
// its limit; 0 when unknown.
var proxyPeak = sync.OnceValue(func() job.Bytes {
	peak, err := residentPeak("/proc/" + strconv.Itoa(os.Getppid()) + "/status")
	if err != nil {
		return 0
	}
	return peak
})

// loop serves calls, one in each line, until the input ends.
func (w *Worker) loop(ctx context.Context, url string, ack bool, calls io.Reader, answers io.Writer) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.initialise(ctx, url)
	if ack {
		if _, writeErr := fmt.Fprintf(answers, "{\"ok\":%t}\n", err == nil); writeErr != nil {
			return errors.Join(err, fmt.Errorf("acknowledge: %w", writeErr))
		}
	}
	if err != nil {
		return err
	}
	lines := bufio.NewReader(calls)
	for {
		line, tooLong, err := readLine(lines)
		if errors.Is(err, io.EOF) && len(line) == 0 && !tooLong {
			return nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read a call: %w", err)
		}
		var req runRequest
		answer := []byte(`{"error":"run: the request is too large"}`)
		if !tooLong {
			if err := json.Unmarshal(line, &req); err != nil {
				req.Value = nil // serve says what is wrong with it
			}
			answer = w.serve(ctx, req.Value)
		}
		if _, err := answers.Write(append(answer, '\n')); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		w.cfg.Collect()
	}
}

// readLine reads a line of at most maxRequestBytes. A longer one is skipped.
func readLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		if tooLong = tooLong || len(line)+len(part) > maxRequestBytes; tooLong {
			line = nil
		} else {
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, tooLong, err
		}
	}
}
