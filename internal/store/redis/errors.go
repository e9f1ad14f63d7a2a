// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	goredis "github.com/redis/go-redis/v9"

	"disdel/internal/store"
)

var (
	errGone = fmt.Errorf("the server no longer holds the store that was opened: it was emptied, or it restarted without its data; "+
		"have it keep an append-only file (appendonly yes) and start again: %w", store.ErrUnavailable)
	errIncomplete = fmt.Errorf("the server lost parts of the object while it was written: it restarted without its data, "+
		"or writing paused for more than %v: %w", uploadLife, store.ErrUnavailable)
)

// answers lists the server's errors by the code that they start with: what they
// are in the contract, and what the user can do.
var answers = map[string]struct {
	err    error
	advice string
}{
	"WRONGTYPE":   {store.ErrCorrupt, "the key holds a value of another type, which no store wrote"},
	"WRONGPASS":   {store.ErrUnauthorised, "give the user and password that the server knows, as redis://user:password@host"},
	"NOAUTH":      {store.ErrUnauthorised, "the server wants a password: write redis://user:password@host, or :password@ for the default user"},
	"NOPERM":      {store.ErrUnauthorised, "give the user the commands and keys of a store on the server (ACL SETUSER), see the documentation of the Redis store"},
	"DENIED":      {store.ErrUnauthorised, "the server is in protected mode: set a password on it"},
	"OOM":         {store.ErrUnavailable, "the server's memory is full: raise its maxmemory or delete old jobs and models"},
	"MISCONF":     {store.ErrUnavailable, "the server cannot write to its disk: free space there and see its log"},
	"READONLY":    {store.ErrUnavailable, "the server is a read-only replica: give the address of the primary"},
	"LOADING":     {store.ErrUnavailable, "the server has started and is loading its data: wait"},
	"BUSY":        {store.ErrUnavailable, "the server is busy with a script: wait, or see SCRIPT KILL"},
	"MASTERDOWN":  {store.ErrUnavailable, "the server's primary is down: start it"},
	"NOREPLICAS":  {store.ErrUnavailable, "the server wants more replicas: start them"},
	"CLUSTERDOWN": {store.ErrUnavailable, "the cluster is down: use a server that is not part of one"},
	"TRYAGAIN":    {store.ErrUnavailable, "the cluster is moving keys: wait"},
	"MOVED":       {nil, "the server is a node of a Redis cluster: use a server that is not"},
}

// phrases are what some servers and proxies say in place of a code.
var phrases = map[string]string{
	"invalid password":                  "WRONGPASS",
	"invalid username-password pair":    "WRONGPASS",
	"without any password configured":   "WRONGPASS",
	"the user executing the script can": "NOPERM", // Redis
	"acl failure in script":             "NOPERM", // Valkey
}

// refusal is an error of this package that does not pass.
type refusal struct{ error }

func refuse(format string, args ...any) error { return refusal{fmt.Errorf(format, args...)} }

func (r refusal) Unwrap() error { return errors.Unwrap(r.error) }

// errTimeout is what a time-out of the client's own becomes, which must not look
// like the end of the caller's context.
var errTimeout = fmt.Errorf("no answer in time: %w", os.ErrDeadlineExceeded)

// explain adds the operation, its key and what can be done to err.
func (s *Store) explain(op, key string, err error) error {
	if key != "" {
		op += " " + key
	}
	for _, settled := range []error{
		store.ErrNotFound, store.ErrConflict, store.ErrCorrupt, store.ErrLimit, store.ErrClosed,
		store.ErrUnavailable, store.ErrUnauthorised, context.Canceled, context.DeadlineExceeded,
	} {
		if errors.Is(err, settled) {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	var refused refusal
	if errors.As(err, &refused) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if errors.Is(err, goredis.ErrClosed) {
		return fmt.Errorf("%s: %w", op, store.ErrClosed)
	}
	at := op + ": redis at " + s.address.server()
	var answer goredis.Error
	if errors.As(err, &answer) {
		return explainAnswer(at, s.address.who(), answer)
	}
	if advice := certificateAdvice(err); advice != "" {
		return fmt.Errorf("%s: %w: %s", at, err, advice)
	}
	return fmt.Errorf("%s: %w: %s: %w", at, err, networkAdvice(err, s.address.tls), store.ErrUnavailable)
}

func explainAnswer(at, who string, err error) error {
	text := err.Error()
	for phrase, code := range phrases {
		if strings.Contains(strings.ToLower(text), phrase) {
			text = code
		}
	}
	// Scripts on older servers put words of their own ahead of the code.
	for word := range strings.FieldsSeq(text) {
		known, ok := answers[strings.Trim(word, "-:")]
		switch {
		case !ok:
			continue
		case errors.Is(known.err, store.ErrUnauthorised):
			return fmt.Errorf("%s %s: %w: %s: %w", at, who, err, known.advice, known.err)
		case known.err == nil:
			return fmt.Errorf("%s: %w: %s", at, err, known.advice)
		}
		return fmt.Errorf("%s: %w: %s: %w", at, err, known.advice, known.err)
	}
	return fmt.Errorf("%s: %w", at, err)
}

// certificateAdvice is for errors of TLS that do not pass, "" for others.
func certificateAdvice(err error) string {
	var (
		authority   x509.UnknownAuthorityError
		name        x509.HostnameError
		invalid     x509.CertificateInvalidError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
		alert       tls.AlertError
	)
	switch {
	case errors.As(err, &authority):
		return "the server's certificate is signed by an authority that this machine does not know: name its file with ?ca=/path/to/ca.pem"
	case errors.As(err, &name):
		return "the server's certificate is for another host: use the name that stands in it"
	case errors.As(err, &invalid), errors.As(err, &certificate):
		return "the server's certificate is not valid: renew it"
	case errors.As(err, &record):
		return "the server does not speak TLS on this port: write redis:// or use its TLS port"
	case errors.As(err, &alert):
		return "the server refuses this TLS connection: see tls-auth-clients and tls-protocols in its configuration"
	}
	return ""
}

func networkAdvice(err error, secure bool) string {
	var (
		lookup  *net.DNSError
		timeout net.Error
	)
	switch {
	case errors.As(err, &lookup):
		return "check the host's name"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "check that the server runs and listens there"
	case errors.As(err, &timeout) && timeout.Timeout() && secure:
		return "the server does not answer, or does not speak TLS on this port: check it, the network and firewalls"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "the server does not answer: check it, the network and firewalls"
	case (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)) && !secure:
		return "the server closed the connection: it was stopped, or it wants TLS (rediss://)"
	}
	return "the connection broke: check the server and the network"
}

// firstError returns the error that says most: a refused command makes the whole
// transaction fail with an error that says only that.
func firstError(cmds []goredis.Cmder, err error) error {
	for _, cmd := range cmds {
		own := cmd.Err()
		if own != nil && !errors.Is(own, goredis.Nil) && !strings.HasPrefix(own.Error(), "EXECABORT") {
			return own
		}
	}
	return err
}
