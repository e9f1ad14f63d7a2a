// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"
	"testing"

	"disdel/internal/bench"
	"disdel/internal/job"
)

func TestWorker(t *testing.T) {
	mb := float64(job.MB)
	r := bench.WorkerResult{
		ProgramBytes: 8 * job.MB, Store: "dir", Steps: 100, Records: 640, Batch: 64, Predicted: 19 * job.MB,
		Process: bench.Spread{Min: 17 * mb, Median: 18 * mb, Max: 19 * mb}, FirstStep: bench.Spread{Min: 0.01, Median: 0.0125, Max: 0.02},
		Cold: true, Least: 16 * job.MB, Enforcement: "cgroup v1",
	}
	var out bytes.Buffer
	if err := Worker(&out, bench.Machine{}, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"peak of the process     17 MB least, 18 MB median, 19 MB most\n", "start to first step     10.0 ms least, 12.5 ms median, 20.0 ms most\n",
		"least limit             16 MB (cgroup v1, cold cache of files)\n", "cnn 28x28x1, 640 records, batch 64, 100 steps, store dir\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("does not say %q:\n%s", want, &out)
		}
	}
	r.Least, r.Cold = 0, false
	out.Reset()
	if err := Worker(&out, bench.Machine{}, r); err != nil || !strings.Contains(out.String(), "none that was tried (cgroup v1, warm cache of files)") {
		t.Errorf("%v:\n%s", err, &out)
	}
	if err := Worker(&full{left: out.Len() / 2}, bench.Machine{}, r); err == nil {
		t.Error("no error although the writer took only half of it")
	}
}
