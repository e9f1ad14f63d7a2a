// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"fmt"
	"testing"
)

// FuzzParseAddress: an address is refused or understood; what is printed of it can
// be read again, and has no password.
func FuzzParseAddress(f *testing.F) {
	for _, raw := range []string{"redis://h", "redis://u:p%40@h:1/2?name=x", "rediss://[::1]:2/0?ca=/a.pem", "redis://@", "redis://u@h", "redis://h/x", "redis://h:99999"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		a, err := ParseAddress(raw)
		if err != nil {
			return
		}
		shown, err := ParseAddress(a.String())
		if err != nil {
			t.Fatalf("%q is shown as %q, which is refused: %v", raw, a, err)
		}
		if shown.password != "" || shown.user != "" || shown.String() != a.String() || fmt.Sprintf("%#v", a) != a.String() {
			t.Fatalf("%q is shown as %q, read again as %q", raw, a, shown)
		}
		whole, err := ParseAddress(a.WithCredential())
		if err != nil || whole.password != a.password || a.password != "" && whole.user != a.user || whole.String() != a.String() {
			t.Fatalf("%q: with its credential it is another one: %v", raw, err)
		}
	})
}
