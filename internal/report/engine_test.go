// SPDX-License-Identifier: Apache-2.0

package report

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"disdel/internal/bench"
	"disdel/internal/job"
)

func TestEngines(t *testing.T) {
	train := bench.EngineCase{Model: "cnn", Shape: "28x28x1", Batch: 64, Threads: 2, Mode: bench.ModeTrain, Operations: 2.8e6}
	infer := bench.EngineCase{Model: "cnn", Shape: "28x28x1", Batch: 1, Threads: 1, Mode: bench.ModeInfer}
	bursts := func(rates ...float64) (all []bench.Burst) {
		for _, r := range rates {
			all = append(all, bench.Burst{Best: r, Median: r, Took: 1})
		}
		return all
	}
	rows := bench.SummariseEngines([]bench.EngineRun{
		{Case: train, Engine: bench.OwnEngine, Version: "v1", Steps: 2000, Bursts: bursts(40000, 41000, 42000), Start: 0.021, Peak: 20 * job.MB, Roofline: 150e9},
		{Case: train, Engine: "tensorflow", Version: "2.21.0", Steps: 2000, Bursts: bursts(10000, 8000, 10250), Start: 3.5, Peak: 680 * job.MB, Roofline: 150e9},
		{Case: train, Engine: "jax", Absent: "not there: no module named jax", Roofline: 150e9},
		{Case: train, Engine: "prototype", Version: "-fuse", Steps: 6000, Bursts: bursts(41000, 41500, 40500)},
		{Case: infer, Engine: bench.OwnEngine, Version: "v1", Steps: 20000, Bursts: bursts(20000)},
	})
	var out bytes.Buffer
	machine := bench.Machine{Processor: "Some CPU", Processors: 2, System: "linux/amd64", Go: "go1", Features: []string{"avx2", "fma"}}
	if err := Engines(&out, machine, rows); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "engines.golden")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), want) {
		t.Errorf("%s differs (see -update); got:\n%s", path, &out)
	}
	if err := Engines(&full{left: out.Len() / 2}, machine, rows); err == nil {
		t.Error("no error although the writer took only half of it")
	}
}
