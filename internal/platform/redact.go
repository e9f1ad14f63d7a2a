// SPDX-License-Identifier: Apache-2.0

package platform

import (
	"net/url"
	"slices"
	"strings"
)

// Secrets are texts that must not be shown, the longest first: one may be part
// of another. They are never changed in place.
type Secrets []string

// secretMin is the length in bytes below which a text is no secret: it would
// turn up by chance, and hides nothing.
const secretMin = 4

// With returns s with more texts, and with the password in each that is a URL,
// both as it is and as a URL writes it.
func (s Secrets) With(values ...string) Secrets {
	more := slices.Clone(s)
	for _, value := range values {
		found := []string{value}
		if u, err := url.Parse(value); err == nil && u.User != nil {
			password, _ := u.User.Password()
			found = append(found, password)
			if _, escaped, ok := strings.Cut(u.User.String(), ":"); ok {
				found = append(found, escaped)
			}
		}
		for _, text := range found {
			if len(text) >= secretMin {
				more = append(more, text)
			}
		}
	}
	slices.SortFunc(more, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(more)
}

// Redact takes the secrets out of a text that others had a part in.
func (s Secrets) Redact(text string) string {
	for _, secret := range s {
		text = strings.ReplaceAll(text, secret, "[redacted]")
	}
	return text
}
