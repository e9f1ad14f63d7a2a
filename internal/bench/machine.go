// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Machine describes where an experiment ran. Unknown fields are empty.
type Machine struct {
	Processor  string `json:"processor"`
	Processors int    `json:"processors"`
	System     string `json:"system"`
	// Load are the load averages of the last 1, 5 and 15 minutes.
	Load string `json:"load"`
	// Features are those of the processor that decide which kernels it can run.
	Features []string `json:"features,omitempty"`
	Go       string   `json:"go"`
}

// features are the kernel's names of those that matter.
var features = []string{"avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512_fp16", "amx_tile"}

// ThisMachine describes this one.
func ThisMachine() Machine {
	m := Machine{Processors: runtime.NumCPU(), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	for line := range strings.Lines(text("/proc/cpuinfo")) {
		key, value, found := strings.Cut(line, ":")
		if !found {
			continue
		}
		switch strings.TrimSpace(key) {
		case "model name":
			m.Processor = strings.TrimSpace(value)
		case "flags":
			for _, feature := range strings.Fields(value) {
				if slices.Contains(features, feature) {
					m.Features = append(m.Features, feature)
				}
			}
		}
		if m.Processor != "" && m.Features != nil {
			break // the others are the same
		}
	}
	if release := strings.TrimSpace(text("/proc/sys/kernel/osrelease")); release != "" {
		m.System += " " + release
	}
	if load := strings.Fields(text("/proc/loadavg")); len(load) >= 3 {
		m.Load = strings.Join(load[:3], " ")
	}
	return m
}

// text is a small file's, "" where it cannot be read.
func text(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(raw)
}

// String is one line.
func (m Machine) String() string {
	processor := m.Processor
	if processor == "" {
		processor = "processor unknown"
	}
	line := fmt.Sprintf("%s, %d processors, %s, %s", processor, m.Processors, m.System, m.Go)
	if m.Load != "" {
		line += ", load at the end " + m.Load
	}
	return line
}
