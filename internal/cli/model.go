// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"disdel/internal/job"
	"disdel/internal/nn"
)

const modelExtension = ".json"

// ownModel is a model of the user's own, as it was given.
type ownModel struct {
	text []byte
	// origin says where it is from, name what it is called if it does not say so.
	origin, name string
}

// isModelFile says whether --model means a file and not a name.
func isModelFile(model string) bool {
	return strings.EqualFold(filepath.Ext(model), modelExtension) || strings.ContainsRune(model, filepath.Separator)
}

// ownModelOf reads the model that a training job brings along, nil where it
// trains a named one. What can be wrong without a data set is found here.
func ownModelOf(spec job.Spec) (*ownModel, error) {
	var m *ownModel
	switch {
	case spec.Kind != job.Train:
		return nil, nil //nolint:nilnil // No model, no error.
	case spec.ModelSpec != nil:
		name := spec.Model
		if isModelFile(name) {
			name = ""
		}
		m = &ownModel{spec.ModelSpec, "model_spec", cmp.Or(name, "own")}
	case isModelFile(spec.Model):
		text, err := readSmall(spec.Model, nn.MaxSpecBytes)
		if err != nil {
			return nil, usagef("--model: %w", err)
		}
		base := filepath.Base(spec.Model)
		m = &ownModel{text, "--model " + spec.Model, strings.TrimSuffix(base, filepath.Ext(base))}
	default:
		return nil, nil //nolint:nilnil // No model, no error.
	}
	if err := nn.CheckFile(m.text); err != nil {
		return nil, m.wrong(err)
	}
	return m, nil
}

func (m *ownModel) wrong(err error) error {
	return usagef("%s: %w; docs/models.md describes model files", m.origin, err)
}

// fit makes the model part of the spec of a job on a data set, so that the job
// needs the file no longer.
func (m *ownModel) fit(spec *job.Spec, d job.Dataset) error {
	own, err := nn.Complete(m.text, nn.Shape{H: d.Height, W: d.Width, C: d.Channels}, d.Classes)
	if err != nil {
		return m.wrong(fmt.Errorf("on %s: %w", d.Name, err))
	}
	own.Name = cmp.Or(own.Name, m.name)
	if err := own.Validate(); err != nil { // the name may be too long
		return m.wrong(err)
	}
	spec.Model, spec.ModelSpec = own.Name, own.Canonical()
	return nil
}

// readSmall reads a file that has at most a given number of bytes.
func readSmall(path string, most int64) (text []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	text, err = io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return text, err
}

// modelHint adds to an error about an unknown model what else can be given.
func modelHint(spec job.Spec, err error) error {
	if !errors.Is(err, nn.ErrUnknownModel) {
		return err
	}
	if isDigest(spec.Model) {
		return fmt.Errorf("%w; a stored model is run with: disdel infer %s --model %s", err, spec.Dataset, spec.Model)
	}
	return fmt.Errorf("%w; or give the path of a model file, such as --model my-model.json", err)
}

// isDigest says whether text can be the start of a digest. Shorter ones are
// rather names.
func isDigest(text string) bool {
	const least, most = 4, 64
	return len(text) >= least && len(text) <= most && strings.Trim(text, "0123456789abcdef") == ""
}

// noModelSpec is how JSON leaves a model out.
func noModelSpec(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }
