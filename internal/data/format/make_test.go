// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// boundBytes is what invariant 2 allows a parser of an input to allocate: a
// constant for its buffers and the tables of inflate, and a multiple of the
// input.
func boundBytes(input int) uint64 { return 1<<20 + 64*uint64(input) }

// allocated is how many bytes a call allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// refuse checks that a parser refuses its input with an ErrFormat that has the
// text, and allocates no more than the input's size allows.
func refuse(t *testing.T, name string, input []byte, text string, parse func(b []byte) error) {
	t.Helper()
	var err error
	if n := allocated(func() { err = parse(input) }); n > boundBytes(len(input)) {
		t.Errorf("%s: %d bytes allocated for an input of %d", name, n, len(input))
	}
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: got %v, want an ErrFormat with %q", name, err, text)
	}
}

// failing is a reader whose disk breaks after some bytes.
type failing struct {
	r   io.Reader
	err error
}

func (f failing) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if errors.Is(err, io.EOF) {
		err = f.err
	}
	return n, err
}

// everyCut checks that a parser refuses every shortened form of a valid input
// and passes the errors of a broken disk on.
func everyCut(t *testing.T, valid []byte, parse func(r io.Reader) error) {
	t.Helper()
	if err := parse(bytes.NewReader(valid)); err != nil {
		t.Fatalf("the whole input: %v", err)
	}
	broken := errors.New("broken disk")
	for n := range valid {
		if err := parse(bytes.NewReader(valid[:n])); !errors.Is(err, ErrFormat) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(valid), err)
		}
		if err := parse(failing{bytes.NewReader(valid[:n]), broken}); !errors.Is(err, broken) && !errors.Is(err, ErrFormat) {
			t.Fatalf("broken at %d of %d bytes: %v", n, len(valid), err)
		}
	}
	if err := parse(failing{bytes.NewReader(nil), broken}); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("broken at the start: %v", err)
	}
}

// onlyErrFormat is what fuzzing checks of an error: nothing but the bytes can be
// wrong.
func onlyErrFormat(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, ErrFormat) {
		t.Fatalf("%v is no ErrFormat", err)
	}
}
