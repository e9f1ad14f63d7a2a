// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"disdel/internal/control"
	"disdel/internal/data"
	"disdel/internal/job"
	"disdel/internal/store"
)

// TestRestager: a job whose controller was killed before it could say that the data
// is in the store goes on if it is there, wherever it came from.
func TestRestager(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	s, err := a.openStore(t.Context(), "dir://"+filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	set, err := data.Open(t.Context(), "digits", data.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := datasetOf(set)
	d.Name = "mine" // nobody knows where that came from
	id := job.ID("20260101-000000-abcdef")
	log, err := json.Marshal([]control.Event{{At: time.Unix(1, 0), Created: &control.Created{
		Job: id, Spec: job.Spec{Kind: job.Train, Dataset: d.Name}.WithDefaults(), Dataset: d, Staging: true,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), job.Keys{Job: id}.Log(), store.Head{}, log); err != nil {
		t.Fatal(err)
	}
	restage := a.restager(&options{}, s, id)
	if err := restage(t.Context()); err == nil || !strings.Contains(err.Error(), "start the job anew") {
		t.Errorf("without the data: %v", err)
	}
	if err := stage(t.Context(), s, set, d); err != nil {
		t.Fatal(err)
	}
	if err := restage(t.Context()); err != nil {
		t.Errorf("with the data: %v", err)
	}
}
