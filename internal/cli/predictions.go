// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"unicode/utf8"
)

// predictionText prints a line for each guess. Its columns are as wide as can be
// known before, so that lines need not be kept.
type predictionText struct {
	w, problems  io.Writer
	model        openedModel
	file, class  int // widths
	headersShown bool
}

// Widths beyond which a long name moves what is behind it.
const (
	maxFileWidth  = 50
	maxClassWidth = 30
	indexWidth    = len("[12345]")
)

func newPredictionText(w, problems io.Writer, m openedModel, paths []string) *predictionText {
	t := &predictionText{w: w, problems: problems, model: m, file: len("FILE"), class: len("CLASS")}
	for _, path := range paths {
		t.file = max(t.file, min(maxFileWidth, utf8.RuneCountInString(path)+indexWidth))
	}
	for class := range m.Spec.Classes {
		t.class = max(t.class, min(maxClassWidth, utf8.RuneCountInString(className(m.dataset, class))))
	}
	return t
}

func (t *predictionText) line(file, class, probability string) error {
	if _, err := fmt.Fprintf(t.w, "%-*s  %-*s  %s\n", t.file, file, t.class, class, probability); err != nil {
		return outputError{fmt.Errorf("write predictions: %w", err)}
	}
	return nil
}

func (t *predictionText) begin() error { return nil }

func (t *predictionText) prediction(from origin, best []guess) error {
	if !t.headersShown {
		t.headersShown = true
		if err := t.line("FILE", "CLASS", "PROBABILITY"); err != nil {
			return err
		}
	}
	for _, g := range best {
		name := printable(className(t.model.dataset, g.class))
		if err := t.line(printable(from.String()), name, fmt.Sprintf("%.2f %%", 100*g.probability)); err != nil {
			return err
		}
	}
	return nil
}

func (t *predictionText) problem(_ string, cause error) error {
	_, err := fmt.Fprintf(t.problems, "disdel: %s\n", printable(cause.Error()))
	return err
}

func (t *predictionText) end() error { return nil }

// predictionJSON prints one object, of which it keeps nothing. It is whole
// whatever happens to files.
type predictionJSON struct {
	w     io.Writer
	model openedModel
	count int
}

type predictedModel struct {
	Name    string `json:"name"`
	Dataset string `json:"dataset"`
	Digest  string `json:"digest,omitempty"`
}

// predictedImage is what is said of an image. Index counts from 0 in a file of
// many.
type predictedImage struct {
	File    string           `json:"file"`
	Index   *int             `json:"index,omitempty"`
	Classes []predictedClass `json:"classes,omitempty"`
	Error   string           `json:"error,omitempty"`
}

type predictedClass struct {
	Class       string  `json:"class"`
	Label       int     `json:"label"`
	Probability float64 `json:"probability"`
}

func (j *predictionJSON) write(text string) error {
	if _, err := io.WriteString(j.w, text); err != nil {
		return outputError{fmt.Errorf("write predictions: %w", err)}
	}
	return nil
}

func (j *predictionJSON) begin() error {
	raw, err := json.Marshal(predictedModel{j.model.Spec.Name, j.model.dataset.Name, j.model.digest})
	return errors.Join(err, j.write("{\n  \"model\": "+string(raw)+",\n  \"predictions\": ["))
}

func (j *predictionJSON) image(i predictedImage) error {
	raw, err := json.Marshal(i)
	if err != nil {
		return fmt.Errorf("write predictions: %w", err)
	}
	separator := ",\n    "
	if j.count == 0 {
		separator = "\n    "
	}
	j.count++
	return j.write(separator + string(raw))
}

func (j *predictionJSON) prediction(from origin, best []guess) error {
	i := predictedImage{File: from.path}
	if from.index >= 0 {
		i.Index = &from.index
	}
	for _, g := range best {
		// Six digits are more than float32 weights can tell.
		p, err := strconv.ParseFloat(strconv.FormatFloat(g.probability, 'f', 6, 64), 64)
		if err != nil {
			return fmt.Errorf("write predictions: %w", err)
		}
		i.Classes = append(i.Classes, predictedClass{className(j.model.dataset, g.class), g.class, p})
	}
	return j.image(i)
}

func (j *predictionJSON) problem(path string, cause error) error {
	return j.image(predictedImage{File: path, Error: cause.Error()})
}

func (j *predictionJSON) end() error {
	tail := "]\n}\n"
	if j.count > 0 {
		tail = "\n  ]\n}\n"
	}
	return j.write(tail)
}
