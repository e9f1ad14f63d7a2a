// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"disdel/internal/store"
	"disdel/internal/store/storetest"
)

// TestServer tests what only a real server does.
func TestServer(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, program string)
	}{
		{"TLS", testTLS},
		{"User", testUser},
		{"Unauthorised", testUnauthorised},
		{"KilledInPut", testKilledInPut},
		{"KilledInGet", testKilledInGet},
		{"KilledInAppend", testKilledInAppend},
		{"Hanging", testHanging},
		{"MemoryFull", testMemoryFull},
		{"Evicting", testEvicting},
		{"Replica", testReplica},
		{"BigObject", testBigObject},
	} {
		for _, program := range named() {
			t.Run(test.name+"/"+program, func(t *testing.T) { test.run(t, program) })
		}
	}
}

// certificates makes an authority and a certificate for localhost.
func certificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	folder := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, authority, leafKey.Public(), authorityKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(leafKey)
	if err != nil {
		t.Fatal(err)
	}
	return write("ca.pem", "CERTIFICATE", authorityDER), write("cert.pem", "CERTIFICATE", leafDER), write("key.pem", "EC PRIVATE KEY", keyDER)
}

// opens fails and returns the error of opening a store.
func opens(t *testing.T, url string) error {
	t.Helper()
	s, err := Open(t.Context(), address(t, url))
	if err == nil {
		_ = s.Close()
		t.Errorf("%s can be opened", address(t, url))
	}
	return err
}

func testTLS(t *testing.T, program string) {
	ca, cert, key := certificates(t)
	secure := freePort(t)
	r := startServer(t, program, "--tls-port", secure, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca,
		"--tls-auth-clients", "no", "--requirepass", "sesame")
	url := "rediss://:sesame@localhost:" + secure + "?ca=" + ca
	s := open(t, url)
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	put(t, s, "k", data)
	if got, err := get(t.Context(), s, "k"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	open(t, s.address.WithCredential())
	for url, want := range map[string]string{
		"rediss://:sesame@localhost:" + secure:                "?ca=",
		"rediss://:sesame@127.0.0.1:" + secure + "?ca=" + ca:  "another host",
		"rediss://:sesame@localhost:" + secure + "?ca=/none":  "/none",
		"rediss://:sesame@localhost:" + secure + "?ca=" + key: "no certificate",
	} {
		err := opens(t, url)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, store.ErrUnavailable) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v; want a permanent error with %q", url, err, want)
		}
	}
	wantError(t, "TLS on a port without", opens(t, "rediss://:sesame@localhost:"+r.port+"?ca="+ca), store.ErrUnavailable, "does not speak TLS")
	wantError(t, "without TLS", opens(t, "redis://:sesame@localhost:"+secure), store.ErrUnavailable, "rediss://")
}

func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err = errors.Join(err, listener.Close()); err != nil {
		t.Fatal(err)
	}
	return port
}

// documentedUser is the user of the package's documentation.
func documentedUser(t *testing.T, name, password string) []any {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(strings.ReplaceAll(string(source), "//", ""), "ACL SETUSER disdel ")
	line, _, ended := strings.Cut(rest, "\n\n")
	if i := strings.Index(rest, "\n \n"); !ended || i >= 0 {
		line = rest[:i]
	}
	if !found {
		t.Fatal("doc.go has no ACL line")
	}
	line, _, _ = strings.Cut(line, "All methods")
	words := []any{"ACL", "SETUSER", "disdel"}
	for word := range strings.FieldsSeq(line) {
		words = append(words, strings.NewReplacer("PASSWORD", password, "{main}", "{"+name+"}").Replace(word))
	}
	return words
}

// testUser runs the whole suite as a user who may do only what the documentation
// says.
func testUser(t *testing.T, program string) {
	r := startServer(t, program)
	server := r.server(t)
	admin := raw(t, r.url())
	if err := admin.Do(t.Context(), documentedUser(t, "t*", "sesame")...).Err(); err != nil {
		t.Fatal(err)
	}
	url := func() string { return strings.Replace(server.fresh(), "redis://", "redis://disdel:sesame@", 1) }
	t.Run("Contract", func(t *testing.T) {
		storetest.Run(t, func(t *testing.T) (a, b store.Store) {
			u := url()
			return open(t, u), open(t, u)
		})
	})
	s := open(t, url())
	put(t, s, "jobs/7/x", nil)
	if err := s.Renew(t.Context(), ""); err != nil {
		t.Error(err)
	}
	// Another store's keys are out of reach.
	err := opens(t, strings.Replace(r.url(), "redis://", "redis://disdel:sesame@", 1)+"?name=other")
	wantError(t, "another store", err, store.ErrUnauthorised, `user "disdel"`, "ACL SETUSER")
	// A user without the right to delete: an error of a command within a script.
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "disdel", "-unlink").Err(); err != nil {
		t.Fatal(err)
	}
	err = s.Delete(t.Context(), "jobs/7/x")
	wantError(t, "delete", err, store.ErrUnauthorised, "delete jobs/7/x", "ACL SETUSER")
}

func testUnauthorised(t *testing.T, program string) {
	r := startServer(t, program, "--requirepass", "sesame", "--user", "ann", "on", ">sesame", "allkeys", "allcommands")
	at := "127.0.0.1:" + r.port
	for url, want := range map[string]string{
		"redis://" + at:                     "without a credential",
		"redis://:password@" + at:           "as the default user",
		"redis://ann:password@" + at:        `as user "ann"`,
		"redis://bob:sesame@" + at:          `as user "bob"`,
		"redis://ann:password@" + at + "/1": `as user "ann"`,
	} {
		err := opens(t, url)
		wantError(t, url, err, store.ErrUnauthorised, want, "user", "password@host")
		if err != nil && (strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), ":password@127")) || errors.Is(err, store.ErrUnavailable) {
			t.Errorf("%s: %v", url, err)
		}
	}
	s := open(t, "redis://ann:sesame@"+at)
	put(t, s, "k", nil)
	admin := raw(t, "redis://:sesame@"+at)
	if err := admin.Do(t.Context(), "ACL", "SETUSER", "ann", "resetpass").Err(); err != nil {
		t.Fatal(err)
	}
	// A connection keeps the rights that it was opened with.
	if err := admin.Do(t.Context(), "CLIENT", "KILL", "USER", "ann").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get(t.Context(), "k")
	wantError(t, "get after the password was changed", err, store.ErrUnauthorised, "get k")
	if err != nil && strings.Contains(err.Error(), "sesame") {
		t.Errorf("the error repeats the password: %v", err)
	}
	if strings.Contains(s.URL(), "sesame") || strings.Contains(s.URL(), "ann") {
		t.Errorf("URL: %s", s.URL())
	}
	refused := opens(t, "redis://ann:sesame@"+at+"/999")
	if refused == nil || strings.Contains(refused.Error(), "sesame") {
		t.Errorf("a database that there is not: %v", refused)
	}
}

func testKilledInPut(t *testing.T, program string) {
	r := startServer(t, program)
	s := open(t, r.url())
	data := bytes.Repeat([]byte("0123456789abcdef"), 4*chunkBytes/16)
	piece := data[:2*chunkBytes+10]
	for _, restart := range []bool{false, true} {
		_, err := s.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
			if _, err := w.Write(piece); err != nil {
				return err
			}
			r.kill()
			if restart {
				r.start(t)
			}
			_, err := w.Write(data[len(piece):])
			return err
		})
		if restart { // The parts are in the append-only file.
			if err != nil {
				t.Errorf("put over a restart: %v", err)
			}
			continue
		}
		wantError(t, "put", err, store.ErrUnavailable, "put k", "127.0.0.1:"+r.port)
		_, err = s.Get(t.Context(), "k")
		wantError(t, "get", err, store.ErrUnavailable, "get k", "check that the server runs")
		wantError(t, "open", opens(t, r.url()), store.ErrUnavailable, "check that the server runs")
		r.start(t)
		_, err = s.Get(t.Context(), "k")
		wantError(t, "get after the restart", err, store.ErrNotFound)
	}
	if got, err := get(t.Context(), s, "k"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v; want all", len(got), err)
	}

	// The decorator goes on by itself once the server is back.
	again := store.WithRetry(s, store.RetryPolicy{Wait: func(context.Context, time.Duration) error {
		if r.cmd == nil {
			r.start(t)
		}
		return nil
	}})
	tries := 0
	created, err := again.PutIfAbsent(t.Context(), "retried", func(w io.Writer) error {
		if tries++; tries == 1 {
			r.kill()
		}
		_, err := w.Write(data)
		return err
	})
	if !created || err != nil || tries != 2 {
		t.Errorf("put with retries: created=%v after %d tries, %v", created, tries, err)
	}

	// Without an append-only file the parts are gone, and so is the store.
	r.args = []string{"--appendonly", "no"}
	r.kill()
	r.start(t)
	lossy := open(t, r.url()+"?name=lossy")
	_, err = lossy.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		if _, err := w.Write(piece); err != nil {
			return err
		}
		r.kill()
		r.start(t)
		return nil
	})
	wantError(t, "put over a restart that lost all", err, store.ErrUnavailable, "appendonly yes")
}

func testKilledInGet(t *testing.T, program string) {
	r := startServer(t, program)
	s := open(t, r.url())
	data := bytes.Repeat([]byte("0123456789abcdef"), 4*chunkBytes/16)
	put(t, s, "k", data)
	for _, restart := range []bool{false, true} {
		reader, err := s.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, chunkBytes+10)
		if _, err := io.ReadFull(reader, got); err != nil {
			t.Fatal(err)
		}
		r.kill()
		if restart {
			r.start(t)
		}
		rest, err := io.ReadAll(reader)
		got = append(got, rest...)
		if !bytes.HasPrefix(data, got) {
			t.Error("wrong bytes")
		}
		if restart {
			if err != nil || len(got) != len(data) {
				t.Errorf("get over a restart: %d bytes, %v", len(got), err)
			}
		} else {
			wantError(t, "read", err, store.ErrUnavailable, "get k", "127.0.0.1:"+r.port)
			r.start(t)
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	}
}

// testKilledInAppend appends and kills over and over: what was acknowledged is
// there, once, and an entry whose answer was lost is there or not.
func testKilledInAppend(t *testing.T, program string) {
	r := startServer(t, program)
	s := open(t, r.url())
	head := store.Head{}
	for i := range 6 {
		next, err := s.Append(t.Context(), "jobs/7", head, fmt.Appendf(nil, "acknowledged %d", i))
		if err != nil {
			t.Fatal(err)
		}
		head = next
		done := make(chan error, 1)
		go func() {
			_, err := s.Append(t.Context(), "jobs/7", head, []byte("in doubt"))
			done <- err
		}()
		r.kill()
		err = <-done
		r.start(t)
		entries, logErr := s.Log(t.Context(), "jobs/7", head)
		if logErr != nil || len(entries) > 1 || err == nil && len(entries) != 1 {
			t.Fatalf("round %d: append answered %v; then %d entries follow, %v", i, err, len(entries), logErr)
		}
		if err != nil {
			wantError(t, "append to a server that was killed", err, store.ErrUnavailable, "append jobs/7")
		}
		if len(entries) == 1 {
			head = entries[0].Head
		}
	}
}

// testHanging stops the server's process: calls end with their context, and Close
// ends what they left behind.
func testHanging(t *testing.T, program string) {
	r := startServer(t, program)
	s := open(t, r.url())
	put(t, s, "k", make([]byte, 3*chunkBytes))
	reader, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	for name, call := range map[string]func() error{
		"put":    func() error { _, err := s.PutIfAbsent(ctx, "new", writing(make([]byte, 3*chunkBytes))); return err },
		"get":    func() error { _, err := s.Get(ctx, "k"); return err },
		"append": func() error { _, err := s.Append(ctx, "k", store.Head{}, nil); return err },
	} {
		wantError(t, name, call(), context.DeadlineExceeded, name)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("calls ended %v after a deadline of 50 ms", took)
	}
	if err := r.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(reader); err != nil || len(data) != 3*chunkBytes {
		t.Errorf("a reader that was not touched: %d bytes, %v", len(data), err)
	}
	_, err = s.Get(t.Context(), "new")
	wantError(t, "get of what was not put", err, store.ErrNotFound)
}

func testMemoryFull(t *testing.T, program string) {
	r := startServer(t, program, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
	s := open(t, r.url())
	put(t, s, "first", make([]byte, 1<<20))
	head, err := s.Append(t.Context(), "jobs/7", store.Head{}, []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.PutIfAbsent(t.Context(), "big", writing(make([]byte, 20<<20)))
	wantError(t, "put", err, store.ErrUnavailable, "put big", "memory is full", "maxmemory")
	wantTidy(t, s.URL())
	if got, err := get(t.Context(), s, "first"); err != nil || len(got) != 1<<20 {
		t.Errorf("get while the memory was full: %d bytes, %v", len(got), err)
	}
	// Every kind of write, with no room at all.
	if err := raw(t, r.url()).Do(t.Context(), "CONFIG", "SET", "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	for name, call := range map[string]func() error{
		"put":        func() error { _, err := s.PutIfAbsent(t.Context(), "k", writing([]byte("x"))); return err },
		"put empty":  func() error { _, err := s.PutIfAbsent(t.Context(), "k", writing(nil)); return err },
		"set status": func() error { return s.SetStatus(t.Context(), "k", []byte("x")) },
		"append":     func() error { _, err := s.Append(t.Context(), "jobs/7", head, nil); return err },
	} {
		wantError(t, name, call(), store.ErrUnavailable, "memory is full")
	}
	if entries, err := s.Log(t.Context(), "jobs/7", store.Head{}); err != nil || len(entries) != 1 {
		t.Errorf("log: %d entries, %v; want 1", len(entries), err)
	}
	if keys, err := s.List(t.Context(), ""); err != nil || len(keys) != 1 {
		t.Errorf("list: %q, %v", keys, err)
	}
	if err := s.Delete(t.Context(), "first"); err != nil {
		t.Errorf("delete, which makes room: %v", err)
	}
	wantTidy(t, s.URL())
}

func testEvicting(t *testing.T, program string) {
	r := startServer(t, program, "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
	if err := opens(t, r.url()); err == nil || !strings.Contains(err.Error(), "noeviction") || errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%v, want a permanent error that says noeviction", err)
	}
}

func testReplica(t *testing.T, program string) {
	r := startServer(t, program)
	s := open(t, r.url())
	put(t, s, "jobs/7/x", []byte("x"))
	c := raw(t, r.url())
	if err := c.Do(t.Context(), "REPLICAOF", "127.0.0.1", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := get(t.Context(), s, "jobs/7/x"); err != nil || string(got) != "x" {
		t.Errorf("get: %q, %v", got, err)
	}
	if keys, err := s.List(t.Context(), ""); err != nil || len(keys) != 1 {
		t.Errorf("list: %q, %v", keys, err)
	}
	_, err := s.PutIfAbsent(t.Context(), "k", writing([]byte("x")))
	wantError(t, "put", err, store.ErrUnavailable, "read-only replica", "primary")
	wantError(t, "set status", s.SetStatus(t.Context(), "k", []byte("x")), store.ErrUnavailable, "read-only replica")
}

// testBigObject streams 64 MB and counts the bytes allocated for it.
func testBigObject(t *testing.T, program string) {
	s := open(t, startServer(t, program).url())
	put(t, s, "warm", make([]byte, 2*chunkBytes))
	if _, err := get(t.Context(), s, "warm"); err != nil {
		t.Fatal(err)
	}
	piece := bytes.Repeat([]byte("0123456789abcdef"), 1<<20/16)
	const pieces = 64
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	created, err := s.PutIfAbsent(t.Context(), "k", func(w io.Writer) error {
		for range pieces {
			if _, err := w.Write(piece); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	r, err := s.Get(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	total, buffer := 0, make([]byte, 4096)
	for err == nil {
		var n int
		n, err = r.Read(buffer)
		total += n
	}
	runtime.ReadMemStats(&after)
	if !errors.Is(err, io.EOF) || total != pieces*len(piece) {
		t.Fatalf("%d bytes, %v", total, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes allocated to put and get %d", got, total)
	}
}
