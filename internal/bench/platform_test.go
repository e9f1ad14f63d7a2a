// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"testing"
	"time"
)

func TestLatencies(t *testing.T) {
	var all []time.Duration
	for n := 200; n > 0; n-- {
		all = append(all, time.Duration(n)*time.Second)
	}
	if got, want := Latencies(all), (Latency{200, 1, 100, 198, 200}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got, want := Latencies(all[199:]), (Latency{1, 1, 1, 1, 1}); got != want {
		t.Errorf("one: %+v, want %+v", got, want)
	}
	if got := Latencies(nil); got != (Latency{}) {
		t.Errorf("none: %+v", got)
	}
}
