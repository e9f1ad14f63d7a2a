// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"

	"disdel/internal/nn/safetensors"
)

// tinyModelFile is a model file as the last average writes it.
func tinyModelFile(t testing.TB) []byte {
	t.Helper()
	dataset, err := json.Marshal(tiny)
	if err != nil {
		t.Fatal(err)
	}
	weights := make([]float32, tinyModel.ParamCount())
	for i := range weights {
		weights[i] = float32(i)
	}
	var out bytes.Buffer
	meta := map[string]string{metaModel: string(tinyModel.Canonical()), metaDataset: string(dataset)}
	if err := safetensors.Write(&out, meta, group{"", tinyModel.Params()}.tensors(weights)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestOpenModel(t *testing.T) {
	m, err := OpenModel(bytes.NewReader(tinyModelFile(t)))
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.Dataset()
	if err != nil || d.Name != tiny.Name || len(d.ClassNames) != 3 || d.Scale != tiny.Scale {
		t.Errorf("data set %+v, %v", d, err)
	}
	weights := make([]float32, m.Spec.ParamCount())
	if err := m.ReadWeights(weights); err != nil || weights[7] != 7 {
		t.Errorf("weights %v, %v", weights[:8], err)
	}
}

// FuzzOpenModel: whatever a file holds, the answer is an error about the file or a
// model of which everything can be read.
func FuzzOpenModel(f *testing.F) {
	good := tinyModelFile(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(bytes.Replace(good, []byte(`"classes\":3`), []byte(`"classes\":9`), 1))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Fuzz(func(t *testing.T, file []byte) {
		about := func(err error) {
			if err != nil && !errors.Is(err, ErrModel) && !errors.Is(err, safetensors.ErrFormat) {
				t.Fatalf("not about the file: %v", err)
			}
		}
		m, err := OpenModel(bytes.NewReader(file))
		if err != nil {
			about(err)
			return
		}
		d, err := m.Dataset()
		about(err)
		if err == nil && (d.Classes != m.Spec.Classes || !(d.Scale > 0)) {
			t.Fatalf("data set %+v for %+v", d, m.Spec)
		}
		if n := m.Spec.ParamCount(); n <= 1<<20 {
			about(m.ReadWeights(make([]float32, n)))
		}
	})
}
