// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"encoding/json"
	"fmt"
	"io"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/safetensors"
)

// ModelFile is a trained model that is being read from a safetensors file.
type ModelFile struct {
	// Spec is the model.
	Spec nn.Spec

	dataset string // as JSON
	reader  *safetensors.Reader
}

// ErrModel is wrapped by OpenModel when the bytes are no model of this project.
var ErrModel = errObject

// OpenModel reads a model's description. The weights, which come after it in r,
// are left to ReadWeights. Bytes that are no safetensors file are
// safetensors.ErrFormat, other files ErrModel; nothing is allocated on the file's
// word alone.
func OpenModel(r io.Reader) (*ModelFile, error) {
	reader, err := safetensors.NewReader(r)
	if err != nil {
		return nil, err
	}
	header := reader.Header()
	spec, err := nn.ParseSpec([]byte(header.Metadata[metaModel]))
	if err != nil {
		return nil, fmt.Errorf("%w: metadata %s: %w", errObject, metaModel, err)
	}
	if err := checkTensors(header.Tensors, []group{{"", spec.Params()}}); err != nil {
		return nil, err
	}
	return &ModelFile{Spec: spec, dataset: header.Metadata[metaDataset], reader: reader}, nil
}

// Dataset is what the model was trained on, as far as running it needs to know:
// how pixels are scaled and what the classes are called. It fits the model, or is
// ErrModel.
func (m *ModelFile) Dataset() (d job.Dataset, err error) {
	if err := json.Unmarshal([]byte(m.dataset), &d); err != nil {
		return d, fmt.Errorf("%w: metadata %s: %w", errObject, metaDataset, err)
	}
	in := m.Spec.Input
	switch {
	case in.H != d.Height || in.W != d.Width || in.C != d.Channels || m.Spec.Classes != d.Classes:
		err = fmt.Errorf("the model takes %v and knows %d classes; %s has %dx%dx%d and %d",
			in, m.Spec.Classes, d.Name, d.Height, d.Width, d.Channels, d.Classes)
	case !(d.Scale > 0 && d.Scale <= 1):
		err = fmt.Errorf("scale %g, want above 0 and at most 1", d.Scale)
	case len(d.ClassNames) != 0 && len(d.ClassNames) != d.Classes:
		err = fmt.Errorf("%d names for %d classes", len(d.ClassNames), d.Classes)
	}
	if err != nil {
		err = fmt.Errorf("%w: metadata %s: %w", errObject, metaDataset, err)
	}
	return d, err
}

// ReadWeights reads all weights into flat, nn.Spec.ParamCount values, once, and
// checks that the file ends after them.
func (m *ModelFile) ReadWeights(flat []float32) error {
	for _, p := range m.Spec.Params() {
		if err := m.reader.ReadNext(flat[p.Offset : p.Offset+p.Len]); err != nil {
			return err // which names the tensor
		}
	}
	return m.reader.Finish()
}
