// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"reflect"
	"slices"
	"testing"

	"disdel/internal/job"
)

func TestMemoryCases_AreTheSeeds(t *testing.T) {
	models, optimizers := []string{"a", "b", "c"}, []string{"x", "y"}
	all := MemoryCases(1, 200, models, optimizers)
	if !reflect.DeepEqual(all, MemoryCases(1, 200, models, optimizers)) || reflect.DeepEqual(all, MemoryCases(2, 200, models, optimizers)) {
		t.Error("cases are not a function of the seed")
	}
	seen := map[string]bool{}
	for _, c := range all {
		if c.Height < memoryLeastSide || c.Height > memoryMostSide || c.Width < memoryLeastSide || c.Width > memoryMostSide ||
			c.Channels < 1 || c.Classes < 2 || c.Batch < 1 || c.Batch > memoryMostBatch || c.Records < c.Batch || c.ShardRecords < 1 {
			t.Errorf("case %v", c)
		}
		seen[c.Model+c.Optimizer] = true
	}
	if len(seen) != 6 {
		t.Errorf("seen %v", seen)
	}
}

func TestSummariseMemory(t *testing.T) {
	run := func(peak, excess job.Bytes) MemoryRun {
		return MemoryRun{Predicted: peak + excess, Peak: peak, Seconds: 0.002}
	}
	const big, small = 100 * job.MB, 10 * job.MB
	for _, c := range []struct {
		name string
		runs []MemoryRun
		kept bool
	}{
		{"none", nil, false},
		{"exact", []MemoryRun{run(big, 0)}, true},
		{"under", []MemoryRun{run(big, 0), run(big, -1)}, false},
		{"median in bytes", slices.Repeat([]MemoryRun{run(small, job.MB)}, MedianCases), true},
		{"median as a share", slices.Repeat([]MemoryRun{run(big, 3*job.MB)}, MedianCases), true},
		{"median beyond both", slices.Repeat([]MemoryRun{run(small, 2*job.MB)}, MedianCases), false},
		{"median of a few", slices.Repeat([]MemoryRun{run(small, 2*job.MB)}, MedianCases-1), true},
		{"worst in bytes", []MemoryRun{run(small, 0), run(small, 0), run(small, 2*job.MB)}, true},
		{"worst as a share", []MemoryRun{run(big, 0), run(big, 0), run(big, 10*job.MB)}, true},
		{"worst beyond both", []MemoryRun{run(small, 0), run(small, 0), run(small, 3*job.MB)}, false},
	} {
		if s := SummariseMemory(c.runs); s.Kept != c.kept || s.Cases != len(c.runs) {
			t.Errorf("%s: %+v, want kept %v", c.name, s, c.kept)
		}
	}
	least, most := WorstMemory([]MemoryRun{run(1, 2), run(1, 1), run(1, 3)}, 2)
	if least[0].Excess() != 1 || least[1].Excess() != 2 || most[0].Excess() != 3 || most[1].Excess() != 2 {
		t.Errorf("extremes: %v and %v", least, most)
	}
}
