// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// With a bound the file goes to the disk while it is written, never more than half
// of the bound behind; without one nothing is asked for.
func TestBound(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := make([]byte, 60_000)
	free := s.bounded(file)
	for range 100 {
		if _, err := free.Write(block); err != nil {
			t.Fatal(err)
		}
	}
	if err := free.end(); err != nil || free.sent > 0 {
		t.Errorf("without a bound %d bytes were sent: %v", free.sent, err)
	}
	const bound = 1 << 20
	s.Bound(bound)
	out := s.bounded(file)
	for i := range 100 {
		if _, err := out.Write(block); err != nil {
			t.Fatal(err)
		}
		if behind := out.written - out.done; behind > bound/2+2*int64(len(block)) || out.written != int64(i+1)*int64(len(block)) {
			t.Fatalf("after %d blocks %d bytes are written and %d not on the disk", i+1, out.written, behind)
		}
	}
	if out.done == 0 {
		t.Error("nothing was waited for")
	}
	if err := out.end(); err != nil || out.done != out.written {
		t.Errorf("at the end %d of %d bytes are on the disk: %v", out.done, out.written, err)
	}

	want := bytes.Repeat([]byte("object"), 1<<18)
	if _, err := s.PutIfAbsent(t.Context(), "a/b", func(w io.Writer) error {
		_, err := w.Write(want)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	object, err := s.Get(t.Context(), "a/b")
	if err != nil {
		t.Fatal(err)
	}
	defer object.Close()
	if got, err := io.ReadAll(object); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(want), err)
	}
	// A file that cannot be told to go is an error of its own kind, not lost.
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := pushOut(file, 0, 0, 1); err == nil {
		t.Error("a closed file went to the disk")
	}
}
