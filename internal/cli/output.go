// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/store"
)

// checkOutput finds out whether the predictions of a job can be written, before
// anything is run, and makes the path independent of where disdel was started.
func checkOutput(spec *job.Spec) error {
	if spec.Output == "" {
		return nil
	}
	if !strings.EqualFold(filepath.Ext(spec.Output), control.OutputExtension) {
		return usagef("--output %s: want a name that ends in %s", spec.Output, control.OutputExtension)
	}
	path, err := filepath.Abs(spec.Output)
	if err == nil {
		err = checkWritable(path)
	}
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	spec.Output = path
	return nil
}

// checkResumed refuses to go on with a job whose predictions would replace a file. Its
// path comes from the log, which others may have written.
func checkResumed(path string) error {
	switch _, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("output of the job: %w", err)
	}
	return fmt.Errorf("output of the job: %s is there, and resume replaces no file; move or remove it and resume again, "+
		"or run infer anew with --output", path)
}

// exporter returns what writes the predictions of jobs: one line for each test
// record, in their order.
func exporter(s store.Store) func(context.Context, control.Created, []string) error {
	return func(ctx context.Context, c control.Created, keys []string) error {
		err := writeFile(c.Spec.Output, func(out io.Writer) error {
			w := csv.NewWriter(out)
			if err := w.Write([]string{"index", "true", "predicted", "probability"}); err != nil {
				return err
			}
			records := 0
			for _, key := range keys {
				if err := eachPrediction(ctx, s, key, c.Dataset, func(p job.Prediction) error {
					records++
					return w.Write([]string{
						strconv.Itoa(records - 1), className(c.Dataset, int(p.Label)), className(c.Dataset, int(p.Class)),
						strconv.FormatFloat(float64(p.Probability), 'f', 6, 64),
					})
				}); err != nil {
					return err
				}
			}
			if records != c.Dataset.Test {
				return fmt.Errorf("%d predictions for %d test records: %w", records, c.Dataset.Test, store.ErrCorrupt)
			}
			w.Flush()
			return w.Error()
		})
		if err != nil {
			return fmt.Errorf("predictions: %w", err)
		}
		return nil
	}
}

// eachPrediction reads the predictions of a piece.
func eachPrediction(ctx context.Context, s store.Store, key string, d job.Dataset, each func(job.Prediction) error) (err error) {
	object, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	var raw [job.PredictionBytes]byte
	for {
		switch _, err := io.ReadFull(object, raw[:]); {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return fmt.Errorf("%s: part of a prediction at its end: %w", key, store.ErrCorrupt)
		case err != nil:
			return err
		}
		p := job.DecodePrediction(raw[:])
		if int(p.Label) >= d.Classes || int(p.Class) >= d.Classes {
			return fmt.Errorf("%s: classes %d and %d of %d: %w", key, p.Label, p.Class, d.Classes, store.ErrCorrupt)
		}
		if err := each(p); err != nil {
			return err
		}
	}
}
