// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"strings"
	"testing"

	"disdel/internal/store"
)

func TestParseURL(t *testing.T) {
	for raw, want := range map[string]string{
		"dir:///srv/disdel":             "/srv/disdel",
		"dir:///srv//disdel/":           "/srv/disdel",
		"dir:///srv/x/../disdel/.":      "/srv/disdel",
		"dir:///home/ann/my store #1":   "/home/ann/my store #1",
		"dir:///home/ann/50%25?a=b@c:d": "/home/ann/50%25?a=b@c:d",
		"dir:///":                       "/",
	} {
		scheme, path, err := store.ParseURL(raw)
		if err != nil || scheme != store.SchemeDir || path != want {
			t.Errorf("%q: %q, %q, %v; want %q", raw, scheme, path, err, want)
		}
	}
	for raw, want := range map[string]string{
		"redis://localhost":                        store.SchemeRedis,
		"rediss://ann:sesame@example.org:6380/1?x": store.SchemeRedisTLS,
	} {
		scheme, location, err := store.ParseURL(raw)
		if err != nil || scheme != want || location != raw {
			t.Errorf("%q: %q, %q, %v; want the address as it is", raw, scheme, location, err)
		}
	}
	for raw, want := range map[string]string{
		"":                                 "dir:///absolute/path",
		"/srv/disdel":                      "write dir:///srv/disdel",
		"srv/disdel":                       "dir:///absolute/path",
		"dir://srv/disdel":                 "three slashes",
		"dir://":                           "three slashes",
		"dir:/srv":                         "dir:///absolute/path",
		"DIR:///srv":                       `"DIR" is not supported: want dir:///absolute/path`,
		"s3://bucket/x":                    `"s3" is not supported: want dir:///absolute/path`,
		"mem://":                           `"mem" is not supported: want dir:///absolute/path`,
		"dir:///a\x00b":                    "NUL",
		"redix://ann:sesame@example.org/1": `"redix"`,
		"ann:sesame@example.org":           "no scheme",
	} {
		scheme, path, err := store.ParseURL(raw)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %q, %q, %v; want an error with %q", raw, scheme, path, err, want)
		} else if strings.Contains(err.Error(), "sesame") {
			t.Errorf("%q: the error repeats the password: %v", raw, err)
		}
	}
}
