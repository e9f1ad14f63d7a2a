// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPublished_Served: with a real engine and a real Redis, behind OpenWhisk's API
// and under 256 MB and 60 s, the published data sets give the models that the
// embedded platform gives, with no container failed. One epoch of cifar10 is enough
// to see that; five take minutes.
func TestPublished_Served(t *testing.T) {
	if !partNamed("docker") || !partNamed("data") {
		return
	}
	if !partNamed("redis") {
		t.Fatal("DISDEL_E2E names docker without redis: containers behind OpenWhisk's API need a store that they reach")
	}
	dir := os.Getenv("DISDEL_DATA")
	if dir == "" {
		t.Fatal("DISDEL_E2E names data, so DISDEL_DATA must name the folder of the published files")
	}
	here, there := startRedis(t)
	d := newDesk(t)
	keys := filepath.Join(d.folder, "keys")
	_, end := d.serveAt("--platform", "docker", "--key-file", keys)
	limits := []string{"--memory", "256", "--timeout", "60", "--data-dir", dir, "--offline", "--json", "--quiet"}
	served := []string{"--platform", "openwhisk", "--store", here, "--worker-store", there}
	d.env["WSK_CONFIG_FILE"] = keys
	for _, line := range []string{"train mnist --epochs 5", "infer mnist", "train cifar10 --epochs 1"} {
		want := d.run(slices.Concat(strings.Fields(line), limits)...).want(t, ExitOK).object(t)
		got := d.run(slices.Concat(strings.Fields(line), limits, served)...).want(t, ExitOK).object(t)
		for _, record := range []map[string]any{want, got} {
			if failed := field[float64](t, record, "metrics", "failed_containers"); failed != 0 {
				t.Errorf("%s on %s: %v containers failed", line, field[string](t, record, "platform"), failed)
			}
			for _, a := range field[[]any](t, record, "actions") {
				if limit, took := field[float64](t, a, "memory_limit_bytes"), field[float64](t, a, "duration_seconds"); limit != 256<<20 || took > 60 {
					t.Errorf("%s: an action of %v bytes took %v s", line, limit, took)
				}
			}
		}
		if a, b := field[string](t, got, "model", "digest"), field[string](t, want, "model", "digest"); a != b {
			t.Errorf("%s: model %s behind OpenWhisk's API, %s embedded", line, a, b)
		}
		if a, b := field[float64](t, got, "accuracy"), field[float64](t, want, "accuracy"); a != b || a < 0.3 {
			t.Errorf("%s: accuracy %v behind OpenWhisk's API, %v embedded", line, a, b)
		}
		cold, _, _ := starts(t, got)
		t.Logf("%s: accuracy %.4f, %.1f s behind OpenWhisk's API with %d cold starts, %.1f s embedded", line, field[float64](t, got, "accuracy"),
			field[float64](t, got, "metrics", "duration_seconds"), cold, field[float64](t, want, "metrics", "duration_seconds"))
	}
	end().want(t, ExitOK)
}
