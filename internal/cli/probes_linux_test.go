// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestProbe_AfterRestart: what is measured of a worker that was just written is enough
// for one that the kernel has read from the disk, as after a restart, and not much more
// than the same takes that was written again.
func TestProbe_AfterRestart(t *testing.T) {
	t.Parallel()
	d := emptyDesk(t)
	worker := filepath.Join(d.install(), "disdel-worker")
	for _, run := range []string{"just written", "read again", "written again"} {
		switch run {
		case "read again":
			if _, err := forget(worker); err != nil {
				t.Fatal(err)
			}
		case "written again":
			raw, err := os.ReadFile(worker)
			if err == nil {
				err = errors.Join(os.Remove(worker), os.WriteFile(worker, raw, 0o755))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		o := d.exec("train", "digits", "--json").want(t, ExitOK)
		for _, action := range field[[]any](t, o.object(t), "actions") {
			role := field[string](t, action, "role")
			predicted, peak := field[float64](t, action, "predicted_bytes"), field[float64](t, action, "peak_bytes")
			if peak > predicted || predicted-peak > 2<<20 {
				t.Errorf("%s: %s took %.0f bytes, predicted were %.0f", run, role, peak, predicted)
			}
		}
	}
}
