// SPDX-License-Identifier: Apache-2.0

package redis

import (
	"fmt"
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for raw, want := range map[string]struct{ public, secret, server, who string }{
		"redis://localhost": {"redis://localhost:6379", "redis://localhost:6379", "localhost:6379", "without a credential"},
		"redis://ann:sesame@example.org:7000/3?name=lab": {
			"redis://example.org:7000/3?name=lab", "redis://ann:sesame@example.org:7000/3?name=lab", "example.org:7000", `as user "ann"`,
		},
		"rediss://:sesame@[::1]/?ca=/etc/a%20b.pem": {
			"rediss://[::1]:6379?ca=%2Fetc%2Fa+b.pem", "rediss://:sesame@[::1]:6379?ca=%2Fetc%2Fa+b.pem", "[::1]:6379", "as the default user",
		},
		"redis://a%40b:p%2Fw%3A%23@h?name=main": {"redis://h:6379", "redis://a%40b:p%2Fw%3A%23@h:6379", "h:6379", `as user "a@b"`},
	} {
		a, err := ParseAddress(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if a.String() != want.public || a.WithCredential() != want.secret || a.server() != want.server || a.who() != want.who {
			t.Errorf("%s: %s, %s, %s, %s; want %+v", raw, a, a.WithCredential(), a.server(), a.who(), want)
		}
		if again, err := ParseAddress(a.WithCredential()); err != nil || again != a {
			t.Errorf("%s: its own URL gives another address, %v", raw, err)
		}
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(format, a); strings.Contains(text, "sesame") {
				t.Errorf("%s shows the password: %s", format, text)
			}
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for raw, want := range map[string]string{
		"http://h":                           "another scheme",
		"redis://":                           "names no host",
		"redis://:sesame@:6379":              "names no host",
		"redis://sesame@h":                   ":password@",
		"redis://ann:@h":                     ":password@",
		"redis://ann:ses/ame@h":              "%2F",
		"redis://ann:ses#ame@h":              "%23",
		"redis://ann:sesame@h:port":          "cannot be read",
		"redis://ann:%zzsesame@h":            "cannot be read",
		"redis://ann:sesame@h/x":             "number of a database",
		"redis://ann:sesame@h/-1":            "number of a database",
		"redis://ann:sesame@h/1/2":           "number of a database",
		"redis://ann:sesame@h/99999999":      "number of a database",
		"redis://ann:sesame@h#sesame":        "behind #",
		"redis://ann:sesame@h?name=a&name=b": "twice",
		"redis://ann:sesame@h?name=a/b":      `name "a/b"`,
		"redis://ann:sesame@h?name=":         `name ""`,
		"redis://ann:sesame@h?name={x}":      "name",
		"redis://ann:sesame@h?ca=/x":         "rediss://",
		"rediss://ann:sesame@h?ca=x":         "absolute",
		"rediss://ann:sesame@h?insecure=1":   `"insecure" is unknown`,
		"redis://ann:sesame@h?%zz":           "cannot be read",
	} {
		_, err := ParseAddress(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want an error with %q", raw, err, want)
		} else if strings.Contains(err.Error(), "ses") {
			t.Errorf("%s: the error repeats the password: %v", raw, err)
		}
	}
}

func TestBorrow(t *testing.T) {
	own, theirs := address(t, "redis://ann:sesame@h"), address(t, "rediss://inside:7000/2")
	if got := theirs.Borrow(own).WithCredential(); got != "rediss://ann:sesame@inside:7000/2" {
		t.Errorf("borrowed: %s", got)
	}
	if got := own.Borrow(address(t, "redis://bob:other@h")).WithCredential(); got != "redis://ann:sesame@h:6379" {
		t.Errorf("borrowed although it had one: %s", got)
	}
}
