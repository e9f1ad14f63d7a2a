// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/store"
	"disdel/internal/store/mem"
	"disdel/internal/worker"
)

const weightsExtension = ".safetensors"

// absent is a store in a folder that is not there yet, and holds nothing.
type absent struct {
	*mem.Store
	url string
}

func (a absent) URL() string { return a.url }

// openToRead opens the store for a command that only reads it: one that is not
// there is empty, and stays away.
func (a *app) openToRead(ctx context.Context, flag string) (store.Store, error) {
	url, err := a.storeURL(flag)
	if err != nil {
		return nil, err
	}
	scheme, location, err := store.ParseURL(url)
	if err == nil && scheme == store.SchemeDir && nothingAt(location) {
		return absent{mem.New(), url}, nil
	}
	return a.openStore(ctx, flag)
}

// nothingAt reports whether there is no folder, or an empty one.
func nothingAt(folder string) bool {
	entries, err := os.ReadDir(folder)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0
}

// storedModel finds the model that a reference means: the newest one of a data
// set, or the one whose digest starts with it.
func (a *app) storedModel(ctx context.Context, o *options, s store.Store, ref string) (control.Model, error) {
	models, err := control.Models(ctx, s, a.warn)
	if err != nil {
		return control.Model{}, err
	}
	var found []control.Model
	for _, m := range models {
		if m.Dataset == ref {
			return m, nil // the newest: they come first
		}
		if ref != "" && strings.HasPrefix(m.Digest, ref) {
			found = append(found, m)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return control.Model{}, fmt.Errorf("%w: %.80q is neither a data set with a model nor the start of a digest in %s; see: %s",
			control.ErrNoModel, ref, s.URL(), o.next("models"))
	default:
		return control.Model{}, fmt.Errorf("%w: %d models start with %q; give more of the digest", control.ErrNoModel, len(found), ref)
	}
}

// damagedModel adds to an error of reading a stored model how to mend it.
func damagedModel(o *options, m control.Model, err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("model %s: %w", m.Digest, err)
	if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("%w; training it again mends it, with the options that this shows: %s", err, o.next("jobs "+string(m.Job)))
	}
	return err
}

// openedModel is a model that is being read, from the store or from a file.
type openedModel struct {
	*worker.ModelFile
	dataset job.Dataset
	// digest is "" for a file.
	digest string
	stored control.Model
	close  func() error
}

// openModel opens the model that a reference means: a .safetensors file, else one
// in the store.
func (a *app) openModel(ctx context.Context, o *options, ref string) (m openedModel, err error) {
	defer func() {
		if err != nil && m.close != nil {
			err = errors.Join(err, m.close())
		}
	}()
	var r io.Reader
	bytes := int64(-1)
	if strings.EqualFold(filepath.Ext(ref), weightsExtension) || strings.ContainsRune(ref, filepath.Separator) {
		file, err := os.Open(ref)
		if err != nil {
			return m, usagef("model: %w", err)
		}
		r, m.close = file, file.Close
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			bytes = info.Size()
		}
	} else {
		s, err := a.openToRead(ctx, o.store)
		if err != nil {
			return m, err
		}
		m.close = s.Close
		stored, err := a.storedModel(ctx, o, s, ref)
		if err != nil {
			return m, err
		}
		object, err := s.Get(ctx, job.ModelKey(stored.Digest))
		if err != nil {
			return m, damagedModel(o, stored, err)
		}
		m.stored = stored
		m.digest, r = stored.Digest, object
		m.close = func() error { return errors.Join(object.Close(), s.Close()) }
	}
	if m.ModelFile, err = worker.OpenModel(r); err == nil {
		m.dataset, err = m.Dataset()
	}
	if err != nil {
		return m, m.wrong(o, ref, err)
	}
	// Before memory is taken for what the file says it holds.
	if want := 4 * int64(m.Spec.ParamCount()); bytes >= 0 && bytes < want {
		return m, m.wrong(o, ref, fmt.Errorf("%w: a file of %d bytes cannot hold %d bytes of weights", worker.ErrModel, bytes, want))
	}
	return m, nil
}

// wrong says which model cannot be read.
func (m openedModel) wrong(o *options, ref string, err error) error {
	if m.digest != "" {
		return damagedModel(o, m.stored, err)
	}
	return fmt.Errorf("model %s: %w; disdel reads what \"disdel models export\" writes: export it again", ref, err)
}

// className is what a class is called.
func className(d job.Dataset, class int) string {
	if class < len(d.ClassNames) {
		return d.ClassNames[class]
	}
	return fmt.Sprint(class)
}

func (a *app) modelsExportCommand() *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use:   "export MODEL FILE.safetensors",
		Short: "Copy a model from the store to a file",
		Long: `Export copies a model to a safetensors file, which "disdel predict" reads and
examples/pytorch_eval.py too. MODEL is the start of its digest, or the name of a
data set, which stands for the newest model that was trained on it. A file that is
there is replaced.`,
		Example: `  disdel models export digits digits.safetensors
  python3 examples/pytorch_eval.py digits.safetensors digits.npz`,
		ValidArgsFunction: a.completeStored(o),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%s: want a model and a file, %d arguments are given; see: %s", commandName(cmd), len(args), o.next("models"))
			}
			if !strings.EqualFold(filepath.Ext(args[1]), weightsExtension) {
				return fmt.Errorf("%s: file %s: want a name that ends in %s", commandName(cmd), args[1], weightsExtension)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			ctx := cmd.Context()
			if err := checkWritable(args[1]); err != nil {
				return err
			}
			s, err := a.openToRead(ctx, o.store)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			m, err := a.storedModel(ctx, o, s, args[0])
			if err != nil {
				return err
			}
			return writeFile(args[1], func(w io.Writer) error {
				return damagedModel(o, m, control.ReadModel(ctx, s, m.Digest, w))
			})
		},
	}
	o.storeFlag(cmd)
	return cmd
}
