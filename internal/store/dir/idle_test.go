// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// TestIdleLeavesNothing: an idle client has no temporary folder; one that is
// writing keeps it.
func TestIdleLeavesNothing(t *testing.T) {
	root := t.TempDir()
	s, err := Open(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	folders := func() int {
		entries, err := os.ReadDir(filepath.Join(root, tempName))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	put := func(key string, during func()) {
		created, err := s.PutIfAbsent(t.Context(), key, func(w io.Writer) error {
			during()
			_, err := io.WriteString(w, key)
			return err
		})
		if err != nil || !created {
			t.Fatalf("put %s: created %v, %v", key, created, err)
		}
	}
	put("a", func() {
		s.Idle()
		if folders() != 1 {
			t.Error("Idle took the folder of a write in progress")
		}
	})
	s.Idle()
	if n := folders(); n != 0 {
		t.Errorf("%d temporary folders of an idle client", n)
	}
	put("b", func() {})
	s.Idle()
	s.Idle()
	if n := folders(); n != 0 {
		t.Errorf("%d temporary folders of an idle client", n)
	}
}
