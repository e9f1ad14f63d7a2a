// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// starts are how many of a job's calls were cold, and how many found a container
// that was started ahead.
func starts(t *testing.T, record map[string]any) (cold, warmed, containers int) {
	t.Helper()
	count := func(name string) int { return int(field[float64](t, record, "metrics", name)) }
	cold, warmed, containers = count("cold_starts"), count("warmed"), count("containers")
	seen := 0
	for _, a := range field[[]any](t, record, "actions") {
		if field[bool](t, a, "cold") {
			seen++
		}
	}
	if seen != cold {
		t.Errorf("%d actions are cold, the record counts %d", seen, cold)
	}
	return cold, warmed, containers
}

// TestColdStarts: a job of K replicas has at most K cold starts, through all of
// its rounds, whether they are one invocation each or many in one.
func TestColdStarts(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, args := range []string{"", "--containers 2 --rounds 6", "--rounds 9", "--workers 8"} {
		replicas := 4
		if args == "--workers 8" {
			replicas = 8
		}
		for _, store := range []string{"old", "new"} { // where the data is to be cut once
			words := slices.Concat([]string{"train", "digits", "--epochs", "1", "--workers", "4", "--json", "--quiet"}, strings.Fields(args),
				[]string{"--store", "dir://" + filepath.Join(d.folder, store+fmt.Sprint(len(args)))})
			cold, warmed, containers := starts(t, d.run(words...).want(t, ExitOK).object(t))
			if cold > replicas || cold+warmed != containers || containers > replicas {
				t.Errorf("%q: %d cold starts and %d warmed containers of %d, with %d replicas", args, cold, warmed, containers, replicas)
			}
		}
	}
}

// TestColdStarts_Served: through an OpenWhisk the same holds, and the next job
// finds the containers of the one before: none of its calls is cold.
func TestColdStarts_Served(t *testing.T) {
	if !partNamed("redis") {
		return
	}
	d := newDesk(t)
	d.env["DISDEL_STORE"] = "redis://default:sesame@" + redisServer(t, "sesame")
	d.env["WSK_CONFIG_FILE"] = filepath.Join(d.folder, "keys")
	_, end := d.serveAt("--key-file", d.env["WSK_CONFIG_FILE"])
	digest := ""
	for n, words := range [][]string{
		{"train", "digits", "--workers", "3", "--epochs", "1"}, {"train", "digits", "--workers", "3", "--epochs", "1"}, {"infer", "digits"},
	} {
		record := d.run(append(words, "--platform", "openwhisk", "--json", "--quiet")...).want(t, ExitOK).object(t)
		most := 0
		if n == 0 {
			most = 3
		}
		if cold, _, _ := starts(t, record); cold > most {
			t.Errorf("job %d, %v, has %d cold starts, want at most %d", n+1, words, cold, most)
		}
		if got := field[string](t, record, "model", "digest"); digest != "" && got != digest {
			t.Errorf("job %d: model %s, want %s", n+1, got, digest)
		} else {
			digest = got
		}
	}
	end().want(t, ExitOK)
}
