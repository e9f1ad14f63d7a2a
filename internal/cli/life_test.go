// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The field names of what --json prints. Other programs read them: adding one is
// fine, changing one is not.
var (
	recordFields = []string{
		"accuracy", "actions", "batch", "confusion", "dataset", "enforcement", "epochs", "job", "kernel_set", "kind",
		"local_batch", "loss", "metrics", "model", "platform", "records", "replicas", "rounds", "seed", "status", "strategy",
	}
	metricsFields = []string{
		"cold_starts", "containers", "controller_peak_bytes", "duration_seconds", "failed_containers", "failure_rate", "gb_seconds", "handovers",
		"init_seconds", "memory_limit_bytes", "memory_peak_bytes", "store_peak_bytes", "warmed",
	}
	modelFields  = []string{"digest", "name", "parameters"}
	actionFields = []string{
		"cold", "container", "duration_seconds", "init_seconds", "memory_limit_bytes", "name", "outcome", "peak_bytes",
		"predicted_bytes", "replica", "role", "step_seconds", "wait_seconds", "warmed",
	}
)

// wantFields fails unless the object has exactly these fields.
func wantFields(t *testing.T, what string, object any, want []string) {
	t.Helper()
	if got := names(t, object); !slices.Equal(got, want) {
		t.Errorf("%s has the fields %v; want %v", what, got, want)
	}
}

// TestLife is a user's first session: train, look around, infer.
func TestLife(t *testing.T) {
	t.Parallel()
	d := emptyDesk(t)
	trained := d.exec("train", "digits").want(t, ExitOK, "disdel: measuring a worker", "disdel: training, round 1 of ", "disdel: evaluating", "disdel: done")
	for _, part := range []string{"train digits, succeeded", "accuracy", "cnn, 19,466 parameters", "5 epochs", "0 failed", "GB-seconds"} {
		if !strings.Contains(trained.stdout, part) {
			t.Errorf("the report does not say %q:\n%s", part, trained.stdout)
		}
	}
	if left := d.scratch(); len(left) > 0 {
		t.Errorf("the job left %v", left)
	}

	again := d.exec("train", "digits", "--json", "--quiet").want(t, ExitOK)
	if again.stderr != "" {
		t.Errorf("--quiet said %q", again.stderr)
	}
	record := again.object(t)
	wantFields(t, "the record", record, recordFields)
	wantFields(t, "its metrics", record["metrics"], metricsFields)
	wantFields(t, "its model", record["model"], modelFields)
	actions := field[[]any](t, record, "actions")
	for _, a := range actions {
		wantFields(t, "an action", a, actionFields)
	}
	digest := field[string](t, record, "model", "digest")
	switch accuracy := field[float64](t, record, "accuracy"); {
	case accuracy < 0.95 || accuracy > 1:
		t.Errorf("accuracy %v; want at least 0.95", accuracy)
	case field[float64](t, record, "records") != 359 || field[string](t, record, "status") != "succeeded":
		t.Errorf("the record is %v", record)
	case !strings.Contains(trained.stdout, digest[:16]):
		t.Errorf("the second model is %s, the first another one:\n%s", digest, trained.stdout)
	}

	infer := d.exec("infer", "digits", "--json").want(t, ExitOK).object(t)
	for _, same := range []string{"accuracy", "loss", "records"} {
		if got, want := field[float64](t, infer, same), field[float64](t, record, same); got != want {
			t.Errorf("infer: %s is %v; training said %v", same, got, want)
		}
	}
	if got := field[string](t, infer, "model", "digest"); got != digest || field[string](t, infer, "kind") != "infer" {
		t.Errorf("infer ran %s; want %s", got, digest)
	}
	text := d.exec("infer", "digits", "--model", digest[:6]).want(t, ExitOK)
	if rows := regexp.MustCompile(`(?m)^\d( +(\d+|\.)){10}$`).FindAllString(text.stdout, -1); len(rows) != 10 || !strings.Contains(text.stdout, `is \ seen as`) {
		t.Errorf("infer shows %d rows of confusion; want 10:\n%s", len(rows), text.stdout)
	}

	models := field[[]any](t, d.exec("models", "--json").want(t, ExitOK).object(t), "models")
	if len(models) != 1 || field[string](t, models[0], "digest") != digest || field[float64](t, models[0], "accuracy") != field[float64](t, record, "accuracy") {
		t.Errorf("models are %v; want one, %s", models, digest)
	}
	if got := d.exec("models").want(t, ExitOK); !strings.Contains(got.stdout, digest[:16]) || strings.Count(got.stdout, "\n") != 2 {
		t.Errorf("models:\n%s", got.stdout)
	}
	jobs := field[[]any](t, d.exec("jobs", "--json").want(t, ExitOK).object(t), "jobs")
	if len(jobs) != 4 || field[string](t, jobs[0], "kind") != "infer" || field[string](t, jobs[2], "job") != field[string](t, record, "job") {
		t.Errorf("%d jobs; want 4, the newest first", len(jobs))
	}
	if got := d.exec("jobs").want(t, ExitOK); strings.Count(got.stdout, "succeeded") != 4 {
		t.Errorf("jobs:\n%s", got.stdout)
	}
	shown := d.exec("jobs", field[string](t, record, "job"), "--json").want(t, ExitOK)
	if shown.stdout != again.stdout {
		t.Errorf("the log has another record than was printed:\n%s\n%s", shown.stdout, again.stdout)
	}
	if got := d.exec("jobs", field[string](t, record, "job")).want(t, ExitOK); !strings.Contains(got.stdout, digest[:16]) {
		t.Errorf("jobs ID:\n%s", got.stdout)
	}

	before := d.files("")
	plan := d.exec("plan", "digits", "--json").want(t, ExitOK).object(t)
	wantFields(t, "the plan", plan, []string{"digest", "limits", "numerics", "resources", "spec"})
	if got := field[float64](t, plan, "numerics", "replicas"); got != field[float64](t, record, "replicas") {
		t.Errorf("the plan has %v replicas", got)
	}
	if after := d.files(""); !slices.Equal(before, after) {
		t.Errorf("planning changed the store: %d files became %d", len(before), len(after))
	}
	wantFields(t, "the version", d.exec("version", "--json").want(t, ExitOK).object(t), []string{"arch", "go", "kernel_set", "os", "version"})
	if sets := field[[]any](t, d.exec("datasets", "--json").want(t, ExitOK).object(t), "datasets"); field[string](t, sets[0], "name") != "digits" {
		t.Errorf("data sets are %v", sets)
	}
}

// TestPlatformCheck: the limits of this machine's platform hold, and the check
// leaves nothing.
func TestPlatformCheck(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	checks := field[[]any](t, d.exec("platform", "check", "--json", "--min-memory", "32").want(t, ExitOK).object(t), "checks")
	for _, c := range checks {
		wantFields(t, "a check", c, []string{"detail", "got", "passed", "want", "what"})
		if !field[bool](t, c, "passed") {
			t.Errorf("%v", c)
		}
	}
	if len(checks) != 4 {
		t.Errorf("%d checks", len(checks))
	}
	if left := d.scratch(); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

// TestFailed: a job that cannot be done is an answer, with code 1 and, for
// programs, one object that says why.
func TestFailed(t *testing.T) {
	t.Parallel()
	for line, says := range map[string][]string{
		"train digits --memory 64":                                   {"64 MB", "128 MB", "--memory"},
		"train digits --memory 1000":                                 {"1000 MB", "512 MB", "--memory"},
		"train digits --memory 128.5":                                {"128.5 MB", "--memory"},
		"train digits --timeout 1000":                                {"16m40s", "5m0s", "--timeout"},
		"train digits --memory 4 --min-memory 4":                     {"4 MB", "--memory"},
		"train digits --min-memory 4 --max-memory 4 --pool-memory 4": {"4 MB"},
		"plan digits --memory 64":                                    {"64 MB", "--memory"},
		"plan digits --model cnn-deep --local-batch 65536 --min-memory 16 --max-memory 16":  {"needs", "16 MB", "short by", "--local-batch"},
		"train digits --model cnn-deep --local-batch 65536 --min-memory 16 --max-memory 16": {"needs", "16 MB", "short by", "--local-batch"},
		"train digits --model cnn-deep --local-batch 65536 --min-memory 16 --memory 16":     {"needs", "--memory gives 16 MB"},
	} {
		t.Run(line, func(t *testing.T) {
			d := newDesk(t)
			args := strings.Fields(line)
			d.run(args...).want(t, ExitFailed, says...)
			got := d.run(append(args, "--json")...).want(t, ExitFailed, says...)
			object := got.object(t)
			text := field[string](t, object, "error")
			for _, part := range says {
				if !strings.Contains(text, part) {
					t.Errorf("the error does not say %q: %s", part, text)
				}
			}
			if args[0] == "train" {
				// What was never planned or measured is not there, rather than 0.
				unknown := []string{"accuracy", "confusion", "kernel_set", "local_batch", "loss", "records", "replicas", "rounds"}
				want := slices.DeleteFunc(append(slices.Clone(recordFields), "error"), func(name string) bool { return slices.Contains(unknown, name) })
				slices.Sort(want)
				have := slices.DeleteFunc(names(t, object), func(name string) bool {
					return slices.Contains([]string{"kernel_set", "local_batch", "replicas", "rounds"}, name)
				})
				if !slices.Equal(have, want) || field[string](t, object, "status") != "failed" {
					t.Errorf("the record has the fields %v, want %v; status %v", have, want, object["status"])
				}
			}
		})
	}
}

// TestDamage: what is broken in the store is made again or is an error that names
// it, never another result.
func TestDamage(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	train := []string{"train", "digits", "--epochs", "1", "--json"}
	first := d.run(train...).want(t, ExitOK).object(t)
	digest, id := field[string](t, first, "model", "digest"), field[string](t, first, "job")
	second := d.run(train...).want(t, ExitOK).object(t)
	if got := field[string](t, second, "model", "digest"); got != digest {
		t.Fatalf("the second model is %s; want %s", got, digest)
	}
	mend := func(path string) func() {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		damage(t, path)
		return func() {
			if err := os.WriteFile(path, raw, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut := func(path string) func() {
		restore := mend(path)
		if err := os.Truncate(path, 100); err != nil {
			t.Fatal(err)
		}
		return restore
	}

	model := filepath.Join(d.store(), "objects", "models", digest+"@")
	for _, harm := range []func(string) func(){mend, cut} {
		restore := harm(model)
		got := d.run("infer", "digits", "--json").want(t, ExitFailed, digest)
		if object := got.object(t); object["accuracy"] != nil || field[string](t, object, "status") != "failed" {
			t.Errorf("infer of a damaged model: %v", object)
		}
		restore()
	}
	// What can be made again is: shards by whoever needs them, a model by training.
	for _, harm := range []func(string) func(){mend, cut} {
		harm(model)
		for _, path := range d.files("objects/data") {
			harm(path)
		}
		again := d.run(train...).want(t, ExitOK).object(t)
		if got := field[string](t, again, "model", "digest"); got != digest {
			t.Errorf("over a damaged model: model %s; want %s", got, digest)
		}
		for _, path := range d.files("objects/data") {
			harm(path)
		}
		got := d.run("infer", "digits", "--json").want(t, ExitOK).object(t)
		if field[float64](t, got, "accuracy") != field[float64](t, first, "accuracy") {
			t.Errorf("mended, accuracy is %v", got["accuracy"])
		}
	}

	log := d.files("logs/jobs/" + id + "@")
	restore := mend(log[len(log)/2])
	d.run("jobs", id).want(t, ExitFailed, id, "corrupt")
	listed := d.run("jobs").want(t, ExitFailed, "1 of ", "cannot be read")
	if !strings.Contains(listed.stdout, "unreadable") || !strings.Contains(listed.stdout, field[string](t, second, "job")) {
		t.Errorf("jobs with one broken log:\n%s", listed.stdout)
	}
	rows := field[[]any](t, d.run("jobs", "--json").want(t, ExitFailed).object(t), "jobs")
	// Jobs of one second are listed in any order.
	at := slices.IndexFunc(rows, func(row any) bool { return field[string](t, row, "job") == id })
	if at < 0 || field[string](t, rows[at], "status") != "unreadable" || field[string](t, rows[at], "error") == "" {
		t.Errorf("the broken job is not listed as such: %v", rows)
	}
	restore()
	d.run("jobs").want(t, ExitOK)

	restore = mend(d.files("logs/models@")[0])
	d.run("models").want(t, ExitFailed, "models", "corrupt")
	d.run("infer", "digits").want(t, ExitFailed, "models", "corrupt")
	restore()
	got := d.run("infer", "digits", "--json").want(t, ExitOK).object(t)
	if field[float64](t, got, "accuracy") != field[float64](t, first, "accuracy") {
		t.Errorf("mended, accuracy is %v", got["accuracy"])
	}
}

// TestBar: on a terminal a bar shows how far training is, and is gone when the
// result is printed.
func TestBar(t *testing.T) {
	d := newDesk(t)
	got := d.runWith(func(a *app) { a.terminal = true }, "train", "digits", "--epochs", "1")
	if got.code != ExitOK || !strings.Contains(got.stderr, "training, round 1 of") || !strings.Contains(got.stderr, "%") {
		t.Fatalf("exit code %d, stderr %q", got.code, got.stderr)
	}
	if last := got.stderr[strings.LastIndexByte(strings.TrimRight(got.stderr, "\r"), '\r')+1:]; strings.Contains(last, "training") {
		t.Errorf("the bar is still there: %q", last)
	}
}

// TestOutputFails: a result that cannot be printed is not a success.
func TestOutputFails(t *testing.T) {
	d := newDesk(t)
	for _, line := range []string{"datasets", "datasets --json", "version", "version --json", "plan digits", "plan digits --json"} {
		var stderr bytes.Buffer
		got := d.runWith(func(a *app) { a.stdout, a.stderr = brokenWriter{}, &stderr }, strings.Fields(line)...)
		if got.code != ExitFailed || !strings.Contains(stderr.String(), os.ErrClosed.Error()) {
			t.Errorf("%s: exit code %d, stderr %q", line, got.code, &stderr)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, os.ErrClosed }
