// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// Linux has a file that is always full.
func TestFetch_FullDisk(t *testing.T) {
	s, a := serve(t, whole(contents, "")), newAttempt(t)
	if err := os.MkdirAll(filepath.Dir(a.path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", a.path+PartSuffix); err != nil {
		t.Fatal(err)
	}
	err := a.Fetch(t.Context(), published(s.URL), a.path)
	a.bad(t, err, "no space left on device (at byte 0 of 614400)")
	if !errors.Is(err, syscall.ENOSPC) || s.count() != 1 {
		t.Errorf("%v after %d requests", err, s.count())
	}
}
