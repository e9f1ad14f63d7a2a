// SPDX-License-Identifier: Apache-2.0

package kernel

import "testing"

func TestPeak_CountsWhatItsVectorsHold(t *testing.T) {
	want := int64(2*12*peakRounds) * int64(peakLanes())
	if got := Peak(); got != want {
		t.Errorf("%d operations, want %d", got, want)
	}
}

func BenchmarkPeak(b *testing.B) {
	operations := int64(0)
	for b.Loop() {
		operations += Peak()
	}
	b.ReportMetric(float64(operations)/b.Elapsed().Seconds()/1e9, "GFLOP/s")
}
