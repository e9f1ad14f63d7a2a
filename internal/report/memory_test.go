// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"strings"
	"testing"

	"disdel/internal/bench"
	"disdel/internal/job"
)

func TestMemory(t *testing.T) {
	c := bench.MemoryCase{Model: "mlp", Height: 8, Width: 9, Channels: 1, Classes: 10, Batch: 4, Optimizer: "sgd", Records: 300, ShardRecords: 100}
	runs := []bench.MemoryRun{
		{Case: c, Predicted: 12 * job.MB, Peak: 10 * job.MB, Seconds: 0.001},
		{Case: c, Predicted: 20 * job.MB, Peak: 20 * job.MB, Seconds: 0.003},
	}
	var out bytes.Buffer
	if err := Memory(&out, bench.Machine{Processors: 2, System: "linux"}, runs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"predicted above peak  0.00 MB least, 1.00 MB median, 2.00 MB most\n",
		"of the peak           0.0 % least, 10.0 % median, 20.0 % most\n",
		"time of a prediction  2.00 ms median, 3.00 ms most\n",
		"2.00 MB     20.0 %  12 MB      10 MB  mlp 8x9x1, 10 classes, batch 4, sgd, 300 records in shards of 100\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("does not say %q:\n%s", want, &out)
		}
	}
	if err := Memory(&full{left: out.Len() / 2}, bench.Machine{}, runs); err == nil {
		t.Error("no error although the writer took only half of it")
	}
}
