// SPDX-License-Identifier: Apache-2.0

// Command testworker is a worker for tests of platforms. It serves the action
// interface and does what a call's parameter "role" says, good or bad. The
// init-only parameter TEST_INIT makes its /init go wrong in the same ways.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "testworker:", err)
		os.Exit(1)
	}
}

// serve listens where the platform calls: on an inherited connection, else on
// the port that containers of images serve.
func serve() error {
	mux := http.NewServeMux()
	w := &worker{}
	mux.HandleFunc("POST /init", w.init)
	mux.HandleFunc("POST /run", w.run)
	text, inherited := os.LookupEnv("DISDEL_WORKER_FD")
	if !inherited {
		return http.ListenAndServe(":8080", mux)
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("DISDEL_WORKER_FD: %w", err)
	}
	conn, err := net.FileConn(os.NewFile(uintptr(number), "platform"))
	if err != nil {
		return err
	}
	syscall.CloseOnExec(number)
	l := &listener{conn: make(chan net.Conn, 1), addr: conn.LocalAddr()}
	l.conn <- &closer{Conn: conn, closed: func() { close(l.conn) }}
	if err := http.Serve(l, mux); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// listener accepts one connection, and ends with it.
type listener struct {
	conn chan net.Conn
	addr net.Addr
}

func (l *listener) Accept() (net.Conn, error) {
	if conn, ok := <-l.conn; ok {
		return conn, nil
	}
	return nil, io.EOF
}
func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return l.addr }

type closer struct {
	net.Conn
	once   sync.Once
	closed func()
}

func (c *closer) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

type worker struct {
	env   map[string]string
	calls int
}

// self tells of the container, as workers do for platforms that cannot look
// into it.
func self() map[string]any {
	peak := int64(0)
	status, _ := os.ReadFile("/proc/self/status")
	if _, rest, ok := bytes.Cut(status, []byte("VmHWM:")); ok {
		fields := bytes.Fields(rest)
		peak, _ = strconv.ParseInt(string(fields[0]), 10, 64)
	}
	host, _ := os.Hostname()
	return map[string]any{"container": fmt.Sprintf("%s-%d-%x", host, os.Getpid(), nonce), "peak_bytes": peak << 10}
}

// nonce tells containers apart in which the process has the same number.
var nonce = rand.Uint64()

type params struct {
	Role  string `json:"role"`
	Bytes int64  `json:"bytes"`
	Code  int    `json:"code"`
	Text  string `json:"text"`
}

func (w *worker) init(out http.ResponseWriter, in *http.Request) {
	var body struct {
		Value struct {
			Env map[string]string `json:"env"`
		} `json:"value"`
	}
	if err := json.NewDecoder(in.Body).Decode(&body); err != nil {
		answer(out, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return
	}
	w.env = body.Value.Env
	switch role := w.env["TEST_INIT"]; role {
	case "":
		answer(out, http.StatusOK, map[string]any{"ok": true})
	case "fail":
		answer(out, http.StatusBadGateway, map[string]any{"error": "cannot start with " + w.env["SECRET"]})
	default:
		w.act(out, params{Role: role, Bytes: 4 << 30, Code: 7}, nil)
	}
}

func (w *worker) run(out http.ResponseWriter, in *http.Request) {
	var body struct {
		Value json.RawMessage `json:"value"`
	}
	var p params
	err := json.NewDecoder(in.Body).Decode(&body)
	if err == nil {
		err = json.Unmarshal(body.Value, &p)
	}
	if err != nil {
		answer(out, http.StatusBadRequest, map[string]any{"error": err.Error()})
		return
	}
	if w.calls++; w.calls > 1 {
		// The mark of one call.
		_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
	}
	w.act(out, p, body.Value)
}

// act does what a role says.
func (w *worker) act(out http.ResponseWriter, p params, value json.RawMessage) {
	switch p.Role {
	case "", "echo":
		answer(out, http.StatusOK, map[string]any{"echo": value, "calls": w.calls})
	case "allocate":
		allocate(p.Bytes)
		answer(out, http.StatusOK, map[string]any{"bytes": p.Bytes})
	case "allocate when told": // by a writer of a named pipe
		if _, err := os.ReadFile(p.Text); err != nil {
			answer(out, http.StatusOK, map[string]any{"error": err.Error()})
			return
		}
		allocate(p.Bytes)
		answer(out, http.StatusOK, map[string]any{"bytes": p.Bytes})
	case "hang":
		fmt.Println("hanging")
		select {}
	case "spin":
		for {
			runtime.Gosched()
		}
	case "exit":
		fmt.Fprintln(os.Stderr, "exiting on request with", w.env["SECRET"])
		os.Exit(p.Code)
	case "signal":
		if os.Getpid() == 1 {
			// The kernel keeps signals from inside from a container's first process;
			// so an init would report that its child was killed.
			os.Exit(128 + p.Code)
		}
		_ = syscall.Kill(os.Getpid(), syscall.Signal(p.Code))
		select {}
	case "orphan":
		// A child in a session of its own, which keeps the output open.
		process, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{
			Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setsid: true},
		})
		if err != nil {
			answer(out, http.StatusOK, map[string]any{"error": err.Error()})
			return
		}
		answer(out, http.StatusOK, map[string]any{"pid": process.Pid})
	case "print":
		fmt.Println(p.Text)
		fmt.Println("XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX")
		fmt.Fprintln(os.Stderr, "secret:", w.env["SECRET"])
		fmt.Fprintln(os.Stderr, "XXX_THE_END_OF_A_WHISK_ACTIVATION_XXX")
		answer(out, http.StatusOK, map[string]any{})
	case "error":
		answer(out, http.StatusOK, map[string]any{"error": p.Text})
	case "status":
		answer(out, p.Code, map[string]any{"error": p.Text})
	case "garbage":
		raw(out, []byte("this is no JSON"))
	case "array":
		raw(out, []byte("[1,2]"))
	case "oversize":
		answer(out, http.StatusOK, map[string]any{"padding": string(bytes.Repeat([]byte{'x'}, int(p.Bytes)))})
	case "chunked":
		_ = http.NewResponseController(out).Flush()
		_, _ = io.WriteString(out, "{}")
	case "truncated":
		out.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(out, "{}")
	case "report":
		answer(out, http.StatusOK, report(w.env))
	default:
		answer(out, http.StatusOK, map[string]any{"error": "unknown role " + p.Role})
	}
}

// allocate makes n bytes resident, and gives them back.
func allocate(n int64) {
	touch(n)
	debug.FreeOSMemory()
}

func touch(n int64) {
	var parts [][]byte
	for part := int64(1 << 20); n > 0; n -= part {
		block := make([]byte, min(part, n))
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		parts = append(parts, block)
	}
	runtime.KeepAlive(parts)
}

// report tells what the worker sees of where it runs.
func report(env map[string]string) map[string]any {
	result := map[string]any{
		"pid": os.Getpid(), "environ": os.Environ(), "init": env, "args": os.Args,
		"sum": fmt.Sprintf("%x", sha256.Sum256([]byte(env["SECRET"]))),
	}
	fds := map[string]string{}
	paths, _ := filepath.Glob("/proc/self/fd/*")
	for _, path := range paths {
		if target, err := os.Readlink(path); err == nil {
			fds[filepath.Base(path)] = target
		}
	}
	result["fds"] = fds
	if session, _, errno := syscall.Syscall(syscall.SYS_GETSID, 0, 0, 0); errno == 0 {
		result["session"] = int(session)
	}
	if score, err := os.ReadFile("/proc/self/oom_score_adj"); err == nil {
		result["oomScore"] = string(bytes.TrimSpace(score))
	}
	return result
}

func answer(out http.ResponseWriter, status int, result map[string]any) {
	if _, failed := result["error"]; !failed {
		result["self"] = self()
	}
	body, err := json.Marshal(result)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"cannot encode"}`)
	}
	out.Header().Set("Content-Type", "application/json")
	out.Header().Set("Content-Length", strconv.Itoa(len(body)))
	out.WriteHeader(status)
	_, _ = out.Write(body) // nobody to tell
}

func raw(out http.ResponseWriter, body []byte) {
	out.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = out.Write(body)
}
