// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"strings"
	"testing"

	"disdel/internal/store"
)

// FuzzParseURL: an address is refused or understood, and read again it means the
// same; an error never repeats what may be a password.
func FuzzParseURL(f *testing.F) {
	for _, raw := range []string{"dir:///a/b", "dir://a", "/a", "redis://u:secret@h:1/2", "rediss://h", "tftp://u:secret@h", "", "dir:///a/../b\x00"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		scheme, location, err := store.ParseURL(raw)
		if err != nil {
			if scheme != "" || location != "" || strings.Contains(raw, "://") && strings.Contains(raw, "@") && !strings.HasPrefix(raw, "dir:") && strings.Contains(err.Error(), raw) {
				t.Fatalf("%q: %q, %q, %v", raw, scheme, location, err)
			}
			return
		}
		if scheme != store.SchemeDir {
			if location != raw {
				t.Fatalf("%q became %q", raw, location)
			}
			return
		}
		again, same, err := store.ParseURL(store.SchemeDir + "://" + location)
		if err != nil || again != scheme || same != location || !strings.HasPrefix(location, "/") {
			t.Fatalf("%q: %q, read again %q, %v", raw, location, same, err)
		}
	})
}
