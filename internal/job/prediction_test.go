// SPDX-License-Identifier: Apache-2.0

package job_test

import (
	"encoding/hex"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/job"
)

func TestPrediction(t *testing.T) {
	raw := job.AppendPrediction([]byte{9}, job.Prediction{Label: 0x0102, Class: 0x0304, Probability: 0.5})
	if got := hex.EncodeToString(raw); got != "09"+"0201"+"0403"+"0000003f" {
		t.Errorf("encoded as %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		p := job.Prediction{Label: rapid.Uint16().Draw(t, "label"), Class: rapid.Uint16().Draw(t, "class"), Probability: rapid.Float32().Draw(t, "probability")}
		raw := job.AppendPrediction(nil, p)
		if got := job.DecodePrediction(raw); got != p || len(raw) != job.PredictionBytes {
			t.Fatalf("%+v became %x, %+v", p, raw, got)
		}
	})
}
