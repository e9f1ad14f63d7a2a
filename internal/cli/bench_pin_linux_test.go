// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A process has the processors that it is started on; those that are not there are an
// error, and nothing is started or stays pinned.
func TestStartOn(t *testing.T) {
	before := allowedProcessors()
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), "grep", "Cpus_allowed_list", "/proc/self/status")
	cmd.Stdout = &out
	if err := startOn(cmd, before[:1]); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if fields := strings.Fields(out.String()); len(fields) != 2 || fields[1] != fmt.Sprint(before[0]) {
		t.Errorf("started on %q, want processor %d", out.String(), before[0])
	}
	for n := 1; n <= len(before); n++ {
		if last := lastProcessors(n); len(last) != n || last[n-1] != before[len(before)-1] {
			t.Errorf("the last %d of %v are %v", n, before, last)
		}
	}
	missing := maxProcessors - 1
	if slices.Contains(before, missing) {
		t.Fatalf("there is a processor %d", missing)
	}
	cmd = exec.CommandContext(t.Context(), "true")
	if err := startOn(cmd, []int{missing}); err == nil || !strings.Contains(err.Error(), fmt.Sprint(missing)) || cmd.Process != nil {
		t.Errorf("on processor %d: %v, started %v", missing, err, cmd.Process != nil)
	}
	if after := allowedProcessors(); !slices.Equal(after, before) {
		t.Errorf("then processors %v, before %v", after, before)
	}
}
