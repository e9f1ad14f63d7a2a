// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/plan"
	"disdel/internal/store"
	"disdel/internal/worker"
)

// datasetOf says of a loaded data set what plans and workers need to know.
func datasetOf(set *data.Set) job.Dataset {
	info := set.Info
	return job.Dataset{
		Name: info.Name, Digest: set.Digest(),
		Height: info.H, Width: info.W, Channels: info.C,
		Classes: info.Classes, ClassNames: info.ClassNames, Scale: info.Scale,
		Train: set.Train.Len(), Test: set.Test.Len(), ShardRecords: data.ShardRecords(info),
	}
}

// stager puts a data set's shards into the store, once.
func stager(s store.Store, set *data.Set, d job.Dataset) func(context.Context) error {
	return func(ctx context.Context) error {
		taken := set
		set = nil // who holds this function need not hold the data
		return stage(ctx, s, taken, d)
	}
}

// stage puts a data set's shards into the store, unless they are there already.
// Those that are there are read through once, and replaced if they are damaged.
func stage(ctx context.Context, s store.Store, set *data.Set, d job.Dataset) error {
	missing, err := missingShards(ctx, s, d)
	if err != nil || len(missing) == 0 {
		return err
	}
	var keys []string
	err = data.Cut(set, d.ShardRecords, func(sh data.Shard) error {
		key := d.ShardKey(job.Part(sh.Part), sh.Index)
		if !missing[key] {
			return nil
		}
		keys = append(keys, key)
		_, err := s.PutIfAbsent(ctx, key, sh.Encode)
		return err
	})
	if err == nil {
		err = s.Flush(ctx, keys...)
	}
	if err != nil {
		return fmt.Errorf("put %s into the store: %w", d.Name, err)
	}
	return nil
}

func missingShards(ctx context.Context, s store.Store, d job.Dataset) (map[string]bool, error) {
	have, err := s.List(ctx, "data/"+d.Digest+"/")
	if err != nil {
		return nil, fmt.Errorf("look for %s in the store: %w", d.Name, err)
	}
	missing := map[string]bool{}
	for _, part := range []job.Part{job.TrainPart, job.TestPart} {
		for i := range d.Shards(part) {
			missing[d.ShardKey(part, i)] = true
		}
	}
	for _, key := range have {
		if !missing[key] {
			continue // of no interest
		}
		err := readThrough(ctx, s, key)
		if errors.Is(err, store.ErrCorrupt) {
			if err = s.Delete(ctx, key); err == nil {
				continue
			}
		}
		switch {
		case err == nil:
			delete(missing, key)
		case !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("look for %s in the store: %w", d.Name, err)
		}
	}
	return missing, nil
}

// readThrough reads an object to its end, which verifies it.
func readThrough(ctx context.Context, s store.Store, key string) (err error) {
	object, err := s.Get(ctx, key)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	_, err = io.Copy(io.Discard, object)
	return err
}

// sameClasses refuses a model of another data set of the same name: data sets of
// one's own are named by the last part of their path.
func sameClasses(ctx context.Context, s store.Store, d job.Dataset, m control.Model) (err error) {
	object, err := s.Get(ctx, job.ModelKey(m.Digest))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, object.Close()) }()
	file, err := worker.OpenModel(object)
	if err != nil {
		return fmt.Errorf("model %.16s: %w", m.Digest, err)
	}
	trained, err := file.Dataset()
	if err != nil {
		return fmt.Errorf("model %.16s: %w", m.Digest, err)
	}
	if theirs := trained.ClassNames; len(theirs) > 0 && len(d.ClassNames) > 0 && !slices.Equal(theirs, d.ClassNames) {
		return fmt.Errorf("%w: model %.16s was trained on a data set %s of other classes (%s) than this one has (%s); train one on this, or name another with --model",
			plan.ErrModel, m.Digest, d.Name, someNames(theirs), someNames(d.ClassNames))
	}
	return nil
}

// someNames are the first few.
func someNames(all []string) string {
	const most = 5
	if len(all) > most {
		return strings.Join(all[:most], ", ") + ", ..."
	}
	return strings.Join(all, ", ")
}
