// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"strings"
	"testing"

	"disdel/internal/job"
	"disdel/internal/worker"
)

func TestWorkerStore(t *testing.T) {
	const own = "redis://ann:sesame@localhost/1"
	for theirs, want := range map[string]string{
		"redis://store.internal:7000":          "redis://ann:sesame@store.internal:7000",
		"rediss://bob:tahini@store.internal/2": "rediss://bob:tahini@store.internal:6379/2",
	} {
		if got, err := workerStore(own, theirs); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", theirs, got, err, want)
		}
	}
	if got, err := workerStore("dir:///srv/a", "dir:///mnt/a"); err != nil || got != "dir:///mnt/a" {
		t.Errorf("folder: %s, %v", got, err)
	}
	for theirs, want := range map[string]string{
		"dir:///srv":           "another kind",
		"redis://bob@h":        "alone",
		"tftp://bob:tahini@h/": "not supported",
	} {
		_, err := workerStore(own, theirs)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "tahini") {
			t.Errorf("%s: %v; want an error with %q and no password", theirs, err, want)
		}
	}
}

// TestWorkersGetTheCredential: through the init-only parameter and nowhere else.
func TestWorkersGetTheCredential(t *testing.T) {
	a := &app{stdout: io.Discard, stderr: io.Discard, getenv: func(string) string { return "" }}
	init, err := a.workerInit(&options{store: "redis://ann:sesame@localhost"})
	if err != nil || init[worker.StoreEnv] != "redis://ann:sesame@localhost" {
		t.Errorf("%q, %v", init, err)
	}
	init, err = a.workerInit(&options{store: "redis://ann:sesame@localhost", workerStore: "redis://inside"})
	if err != nil || init[worker.StoreEnv] != "redis://ann:sesame@inside:6379" {
		t.Errorf("%q, %v", init, err)
	}
}

func TestFolderStoreNeedsLocalFiles(t *testing.T) {
	folder := map[string]string{worker.StoreEnv: "dir:///srv/disdel"}
	server := map[string]string{worker.StoreEnv: "redis://ann:sesame@h"}
	for _, local := range []bool{false, true} {
		if err := checkReach("openwhisk", job.Limits{LocalFiles: local}, server); err != nil {
			t.Errorf("a server, local files %v: %v", local, err)
		}
	}
	if err := checkReach("process", job.Limits{LocalFiles: true}, folder); err != nil {
		t.Errorf("a folder where containers see it: %v", err)
	}
	err := checkReach("openwhisk", job.Limits{}, folder)
	if !isUsage(err) {
		t.Fatalf("%v, want wrong usage", err)
	}
	for _, want := range []string{"openwhisk", "/srv/disdel", "--store redis://"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestCommandsThatStartWorkersTakeTheirStore(t *testing.T) {
	for _, words := range [][]string{{"train"}, {"infer"}, {"plan"}, {"resume"}, {"platform", "check"}} {
		cmd, _, err := Root().Find(words)
		if err != nil || cmd.Flags().Lookup("worker-store") == nil {
			t.Errorf("%v: no --worker-store, %v", words, err)
		}
	}
}
