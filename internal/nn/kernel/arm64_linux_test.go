// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// On arm64 generic-1 has the bits that it has here, by its assembly and without: the
// tests of its order and of the pinned values run under an emulator. They run where the
// variable DISDEL_E2E names "arm64", and then there must be qemu-aarch64.
func TestARM64(t *testing.T) {
	if !slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), "arm64") {
		return
	}
	emulator, err := exec.LookPath("qemu-aarch64")
	if err != nil {
		t.Fatalf("DISDEL_E2E names arm64, so there must be an emulator: %v", err)
	}
	for _, tags := range []string{"", "noasm"} {
		program := filepath.Join(t.TempDir(), "kernel.test")
		build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", tags, "-o", program, ".")
		build.Env = append(os.Environ(), "GOARCH=arm64", "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build: %v: %s", err, out)
		}
		tests := "^(TestAccumulate.*|FuzzAccumulate|TestGenericConvOrder|TestExpAndLogArePinned)$"
		out, err := exec.CommandContext(t.Context(), emulator, program, "-test.v", "-test.run", tests).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestAccumulateMatchesPlainGo") {
			t.Errorf("tags %q: %v: %s", tags, err, out)
		}
	}
}
