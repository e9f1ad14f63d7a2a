// SPDX-License-Identifier: Apache-2.0

package platform

import "testing"

// TestSecrets: a worker that shows its store's password alone, or as part of
// another text, shows nothing.
func TestSecrets(t *testing.T) {
	none := Secrets(nil)
	secrets := none.With("rediss://user:p%40ss%2Fword@host:6379/0?x=1", "1234").With("abc", "12345", "1234")
	for text, want := range map[string]string{
		"dial rediss://user:p%40ss%2Fword@host:6379/0?x=1 failed": "dial [redacted] failed",
		"dial rediss://user:p%40ss%2Fword@other failed":           "dial rediss://user:[redacted]@other failed",
		"WRONGPASS p@ss/word":                                     "WRONGPASS [redacted]",
		"123456 of 1234":                                          "[redacted]6 of [redacted]",
		"abc at host is too short to be kept":                     "abc at host is too short to be kept",
		"":                                                        "",
	} {
		if got := secrets.Redact(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
		if got := none.Redact(text); got != text {
			t.Errorf("%q becomes %q without secrets", text, got)
		}
	}
	for _, value := range []string{"", "redis://host", "redis://user@host/", "://:%", "mailto:x@y"} {
		if got := none.With(value).Redact("user at host, nothing else"); got != "user at host, nothing else" {
			t.Errorf("%q hides %q", value, got)
		}
	}
}
