// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/job"
)

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]job.Bytes{
		"256":     256 * job.MB,
		"0":       0,
		"0.5":     512 * job.KB,
		"256MB":   256 * job.MB,
		"256 mb":  256 * job.MB,
		" 1 GiB ": job.GB,
		"1.5GB":   1536 * job.MB,
		"2k":      2 * job.KB,
		"2K":      2 * job.KB,
		"2kib":    2 * job.KB,
		"3M":      3 * job.MB,
		"4g":      4 * job.GB,
		"100B":    100,
		"100b":    100,
		"0.4B":    0,
		".5KB":    512,
		"1.GB":    job.GB,
		"007":     7 * job.MB,
	} {
		if got, err := job.ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "-1", "+1", "1e3", "1E3MB", "NaN", "Inf", "0x10", "0x1p3", "MB", "B", "K", ".", "..", "1.2.3", "1,5GB",
		"1_000", "256MBB", "256 M B", "5 MB 3", "MB5", "256TB", "٣", "5\u212a", "1\x00", "9999999999999999999GB",
		"4611686018427388905B", strings.Repeat("9", 400), "1" + strings.Repeat("0", 400) + "B",
	} {
		if got, err := job.ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d; want an error", text, got)
		} else if len(text) < 100 && strings.TrimSpace(text) != "" && !strings.Contains(err.Error(), "memory") {
			t.Errorf("ParseBytes(%q): error %q does not say what it is about", text, err)
		}
	}
}

func TestBytes_String(t *testing.T) {
	for b, want := range map[job.Bytes]string{
		0: "0 B", 1: "1 B", -1: "-1 B", 1023: "1023 B", 1024: "1 KB", 1536: "1.5 KB", -1536: "-1.5 KB",
		23961: "23.4 KB", job.MB - 1: "1 MB", job.MB: "1 MB", 256 * job.MB: "256 MB", job.GB - 1: "1 GB", 7 * job.GB / 2: "3.5 GB",
		math.MaxInt64: "8589934592 GB", math.MinInt64: "-8589934592 GB",
	} {
		if got := b.String(); got != want {
			t.Errorf("String of %d = %q, want %q", int64(b), got, want)
		}
	}
}

// What String prints, ParseBytes reads, to the precision of what was printed.
func TestBytes_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := job.Bytes(rapid.Int64Range(0, math.MaxInt64/4).Draw(t, "bytes"))
		text := b.String()
		back, err := job.ParseBytes(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if off := math.Abs(float64(back - b)); off > max(float64(b)*0.051, 0) {
			t.Fatalf("%d is printed as %q, which is read as %d", int64(b), text, int64(back))
		}
		if again := back.String(); again != text {
			t.Fatalf("%q is read as %d, which is printed as %q", text, int64(back), again)
		}
		whole := job.Bytes(rapid.Int64Range(0, 1023).Draw(t, "whole"))
		for _, unit := range []job.Bytes{1, job.KB, job.MB, job.GB} {
			if back, err := job.ParseBytes((whole * unit).String()); err != nil || back != whole*unit {
				t.Fatalf("%d x %d: %d, %v", int64(whole), int64(unit), int64(back), err)
			}
		}
	})
}

func TestBytes_CeilTo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := job.Bytes(rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes"))
		step := job.Bytes(rapid.Int64Range(-5, 1<<40).Draw(t, "step"))
		got := b.CeilTo(step)
		switch {
		case step <= 0 || b > math.MaxInt64-step:
			if got != b {
				t.Fatalf("CeilTo(%d, %d) = %d, want it unchanged", b, step, got)
			}
		case got < b || got-b >= step || got%step != 0:
			t.Fatalf("CeilTo(%d, %d) = %d", b, step, got)
		}
	})
}

func FuzzParseBytes(f *testing.F) {
	for _, seed := range []string{"256", "1.5GB", "", "1e3", "-1", "NaN", "0x10", "MB", " 7 kib ", "99999999999999GB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		b, err := job.ParseBytes(text)
		if err != nil {
			if b != 0 {
				t.Errorf("ParseBytes(%q) = %d and an error", text, b)
			}
			return
		}
		if b < 0 {
			t.Errorf("ParseBytes(%q) = %d", text, b)
		}
		if !strings.ContainsAny(text, "0123456789") || strings.ContainsAny(text, "-+eExX_") {
			t.Errorf("ParseBytes(%q) = %d; want an error", text, b)
		}
		if again, err := job.ParseBytes(b.String()); err != nil || again < 0 {
			t.Errorf("ParseBytes(%q), printed by %d: %v", b.String(), b, err)
		}
	})
}
