// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"testing"

	"disdel/internal/job"
)

func TestLeastLimit(t *testing.T) {
	for least := job.Bytes(0); least <= 110; least++ {
		tries := 0
		got, err := LeastLimit(t.Context(), 20, 100, 4, func(_ context.Context, limit job.Bytes) (bool, error) {
			tries++
			return limit >= least, nil
		})
		want := max(20, (least+3)/4*4)
		if want > 100 {
			want = 0
		}
		if err != nil || got != want || tries > 5 {
			t.Errorf("least %d: %d after %d tries, %v; want %d", least, got, tries, err, want)
		}
	}
	broken := errors.New("broken")
	if _, err := LeastLimit(t.Context(), 1, 2, 1, func(context.Context, job.Bytes) (bool, error) { return false, broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
