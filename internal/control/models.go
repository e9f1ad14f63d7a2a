// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"disdel/internal/job"
	"disdel/internal/store"
)

// ErrNoModel is wrapped when the store has no such model.
var ErrNoModel = errors.New("no such model")

// Model is an entry of the store's list of models.
type Model struct {
	// Digest is the hexadecimal SHA-256 of the model's safetensors file, which
	// is stored under job.ModelKey(Digest).
	Digest     string `json:"digest"`
	Name       string `json:"name"`
	Dataset    string `json:"dataset"`
	Parameters int    `json:"parameters"`
	// Spec is the canonical JSON of package nn.
	Spec      json.RawMessage `json:"spec"`
	KernelSet string          `json:"kernel_set"`
	Job       job.ID          `json:"job"`
	Created   time.Time       `json:"created"`
	Epochs    int             `json:"epochs"`
	Replicas  int             `json:"replicas"`
	// Accuracy on the data set's test part, a fraction.
	Accuracy float64 `json:"accuracy"`
}

// Models lists the models in the store, the newest first, each digest once. An
// entry that cannot be decoded is left out and told to warn, which may be nil.
func Models(ctx context.Context, s store.Store, warn func(error)) ([]Model, error) {
	models, _, err := readModels(ctx, s, warn)
	return models, err
}

func readModels(ctx context.Context, s store.Store, warn func(error)) (models []Model, head store.Head, err error) {
	entries, err := s.Log(ctx, job.ModelsLog, store.Head{})
	if err != nil {
		return nil, head, fmt.Errorf("list models: %w", err)
	}
	if len(entries) > 0 {
		head = entries[len(entries)-1].Head
	}
	seen := map[string]bool{}
	for i := len(entries) - 1; i >= 0; i-- {
		var m Model
		if err := json.Unmarshal(entries[i].Payload, &m); err != nil {
			if warn != nil {
				warn(fmt.Errorf("list models: entry %d is left out: %w", entries[i].Head.Sequence, err))
			}
			continue
		}
		if !seen[m.Digest] {
			seen[m.Digest] = true
			models = append(models, m)
		}
	}
	return models, head, nil
}

// FindModel returns the model of a data set whose digest starts with prefix, or
// the newest one for "". A prefix that fits several models is an error. warn is
// that of Models.
func FindModel(ctx context.Context, s store.Store, dataset, prefix string, warn func(error)) (Model, error) {
	models, err := Models(ctx, s, warn)
	if err != nil {
		return Model{}, err
	}
	var found []Model
	for _, m := range models {
		if m.Dataset == dataset && strings.HasPrefix(m.Digest, prefix) {
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 0 && prefix == "":
		return Model{}, fmt.Errorf("%w: none is trained on %s in %s", ErrNoModel, dataset, s.URL())
	case len(found) == 0:
		return Model{}, fmt.Errorf("%w: none on %s starts with %q in %s", ErrNoModel, dataset, prefix, s.URL())
	case len(found) > 1 && prefix != "":
		return Model{}, fmt.Errorf("%w: %d models on %s start with %q; give more of the digest", ErrNoModel, len(found), dataset, prefix)
	}
	return found[0], nil
}

// appendModel enters a model in the list, unless its job has done so before.
func appendModel(ctx context.Context, s store.Store, m Model) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("list model %s: %w", m.Digest, err)
	}
	// An Append that failed may have added the entry all the same: the list is
	// read again before another one.
	once := func() error {
		models, head, err := readModels(ctx, s, nil)
		if err != nil {
			return err
		}
		for _, known := range models {
			if known.Digest == m.Digest && known.Job == m.Job {
				return nil
			}
		}
		_, err = s.Append(ctx, job.ModelsLog, head, raw)
		return err
	}
	const tries = 100
	for range tries {
		err = patiently(ctx, once, func(err error) bool { return errors.Is(err, store.ErrUnavailable) })
		if err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return fmt.Errorf("list model %s: %w", m.Digest, err)
		}
	}
	return fmt.Errorf("list model %s: %w after %d tries", m.Digest, store.ErrConflict, tries)
}

// copyModel copies the model from a job's scratch space to its lasting key and
// checks its digest on the way. A model that is there already is read through,
// and replaced if it is damaged.
func copyModel(ctx context.Context, s store.Store, from, digest string) error {
	to := job.ModelKey(digest)
	created, err := putModel(ctx, s, from, to, digest)
	if err == nil && !created {
		switch err = readModel(ctx, s, to, digest, io.Discard); {
		case errors.Is(err, store.ErrCorrupt):
			if err = s.Delete(ctx, to); err == nil {
				_, err = putModel(ctx, s, from, to, digest)
			}
		case errors.Is(err, store.ErrNotFound): // another job is replacing it
			_, err = putModel(ctx, s, from, to, digest)
		}
	}
	if err == nil {
		err = s.Flush(ctx, to)
	}
	if err != nil {
		return fmt.Errorf("publish model: %w", err)
	}
	return nil
}

func putModel(ctx context.Context, s store.Store, from, to, digest string) (created bool, err error) {
	return s.PutIfAbsent(ctx, to, func(w io.Writer) error {
		return readModel(ctx, s, from, digest, w)
	})
}

// ReadModel copies a model of the store's list to w. One with another digest than
// its key says is store.ErrCorrupt, which shows at its end.
func ReadModel(ctx context.Context, s store.Store, digest string, w io.Writer) error {
	return readModel(ctx, s, job.ModelKey(digest), digest, w)
}

// readModel copies a model to w. One with another digest is corrupt.
func readModel(ctx context.Context, s store.Store, key, digest string, w io.Writer) (err error) {
	object, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(w, sum), object); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != digest {
		return fmt.Errorf("model %s in %s has digest %s: %w", digest, key, got, store.ErrCorrupt)
	}
	return nil
}
