// SPDX-License-Identifier: Apache-2.0

package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// TestEmpty: the empty program makes an image on every architecture, and runs on
// this one.
func TestEmpty(t *testing.T) {
	for architecture := range exits {
		program, err := Empty(architecture)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "empty")
		if err := os.WriteFile(path, program, 0o755); err != nil {
			t.Fatal(err)
		}
		if img, err := Build(path); err != nil || img.Architecture != architecture {
			t.Errorf("%s: %+v, %v", architecture, img, err)
		}
		if architecture == runtime.GOARCH {
			if output, err := exec.CommandContext(t.Context(), path).CombinedOutput(); err != nil || len(output) > 0 {
				t.Errorf("it ended with %v and printed %q", err, output)
			}
		}
	}
	if _, err := Empty("pdp11"); err == nil {
		t.Error("a program for a machine that is not known")
	}
}
