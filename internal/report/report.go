// SPDX-License-Identifier: Apache-2.0

package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"

	"disdel/internal/job"
)

// digestDigits is how much of a digest people are shown: enough to name a model
// and to compare two by eye.
const digestDigits = 16

// JSON writes v as one indented object.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}

// oneLine makes text fit for a cell, whatever is in it: names and errors come
// from files and from other programs, and must not break the table or move the
// cursor about.
func oneLine(text string) string {
	text = strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "; ")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r):
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// errorRunes is how much of an error a list shows.
const errorRunes = 120

func shorten(text string) string {
	runes := []rune(text)
	if len(runes) <= errorRunes {
		return text
	}
	return string(runes[:errorRunes-3]) + "..."
}

// Job writes a job's result.
func Job(w io.Writer, r job.Record) error {
	t := newTable(w)
	t.row("job", fmt.Sprintf("%s  %s %s, %s", r.Job, r.Kind, r.Dataset, r.Status))
	if r.Error != "" {
		t.row("error", r.Error)
	}
	if r.Records > 0 {
		t.row("accuracy", fmt.Sprintf("%.2f %%  (loss %.4f, %d test records)", 100*r.Accuracy, r.Loss, r.Records))
	}
	if r.Model.Parameters > 0 {
		t.row("model", fmt.Sprintf("%s, %s parameters  %s", r.Model.Name, thousands(r.Model.Parameters), Digest(r.Model.Digest)))
	}
	if r.Strategy != "" && r.Strategy != job.Distributed {
		t.row("strategy", r.Strategy)
	}
	if r.AccuracyNote != "" {
		t.row("expected", r.AccuracyNote)
	}
	switch {
	case r.Sync == job.SyncStep:
		t.row("training", fmt.Sprintf("%s, %s, gradients of batches of %d averaged in %s, seed %d",
			count(r.Epochs, "epoch"), count(r.Replicas, "replica"), r.Batch, count(r.Rounds, "step"), r.Seed))
	case r.Replicas > 0:
		t.row("training", fmt.Sprintf("%s, %s of local batch %d (batch %d), %s, seed %d",
			count(r.Epochs, "epoch"), count(r.Replicas, "replica"), r.LocalBatch, r.Batch, count(r.Rounds, "round"), r.Seed))
	}
	m := r.Metrics
	if m.Containers == 0 {
		t.row("containers", "none ran")
	} else {
		starts := fmt.Sprintf("%d, %s", m.Containers, count(m.ColdStarts, "cold start"))
		if m.Warmed > 0 {
			starts += fmt.Sprintf(", %d warmed", m.Warmed)
		}
		t.row("containers", fmt.Sprintf("%s, %d failed, %s", starts, m.FailedContainers, count(m.Handovers, "hand-over")))
		t.row("memory", fmt.Sprintf("%v of limits (%s), %v measured; store %v, controller %v",
			m.MemoryLimit, r.Enforcement, m.MemoryPeak, m.StorePeak, m.ControllerPeak))
		t.row("time", fmt.Sprintf("%.2f s; containers took %.3f s to start, in all", m.DurationSeconds, m.InitSeconds))
		cost := fmt.Sprintf("%.3f GB-seconds", m.GBSeconds)
		if m.Cost != nil {
			cost += ", " + money(*m.Cost) + " in money"
		}
		t.row("cost", cost)
	}
	if err := t.flush(); err != nil {
		return err
	}
	return actions(w, r.Actions)
}

// roleOrder is the order of the rows below a result.
var roleOrder = []job.Role{job.RoleProbe, job.RoleTrain, job.RoleAverage, job.RoleInfer, job.RoleEvaluate}

// harmless are the outcomes of invocations that nothing went wrong with.
var harmless = map[string]bool{
	"success": true, "running": true, string(job.NeedTime): true, string(job.NeedPeer): true, "cancelled": true,
}

// actions sums invocations up by role.
func actions(w io.Writer, all []job.RecordAction) error {
	if len(all) == 0 {
		return nil
	}
	t := newPart(w)
	t.row("role", "calls", "cold", "failed", "limit", "predicted", "peak", "seconds")
	for _, role := range roleOrder {
		var calls, cold, failed int
		var limit, predicted, peak job.Bytes
		var seconds float64
		for _, a := range all {
			if a.Role != role {
				continue
			}
			calls++
			if a.Cold {
				cold++
			}
			if !harmless[a.Outcome] {
				failed++
			}
			limit, predicted, peak = max(limit, a.MemoryLimit), max(predicted, a.Predicted), max(peak, a.Peak)
			seconds += a.DurationSeconds
		}
		if calls > 0 {
			t.row(role, calls, cold, failed, limit, known(predicted), known(peak), fmt.Sprintf("%.3f", seconds))
		}
	}
	return t.flush()
}

func known(b job.Bytes) string {
	if b == 0 {
		return "-"
	}
	return b.String()
}

// trainingRows say what a job adds to plain training.
func trainingRows(t *table, n job.Numerics) {
	rate := ""
	switch n.Local.Schedule {
	case "step":
		rate = fmt.Sprintf("a tenth after half of %d steps, a hundredth after three quarters", n.Local.ScheduleSteps)
	case "cosine":
		rate = fmt.Sprintf("down to zero along a cosine of %d steps", n.Local.ScheduleSteps)
	}
	if n.Local.WarmupSteps > 0 {
		rate = join(fmt.Sprintf("grows for %d steps", n.Local.WarmupSteps), rate)
	}
	t.known("rate", rate)
	loss := ""
	if n.Local.L2 > 0 {
		loss = fmt.Sprintf("L2 of weights %g", n.Local.L2)
	}
	if n.LabelSmoothing > 0 {
		loss = join(loss, fmt.Sprintf("labels smoothed by %g", n.LabelSmoothing))
	}
	if n.Local.ClipNorm > 0 {
		loss = join(loss, fmt.Sprintf("gradients no longer than %g", n.Local.ClipNorm))
	}
	t.known("loss", loss)
	records := ""
	if n.Flips {
		records = "mirrored by chance"
	}
	if n.Shifts > 0 {
		records = join(records, "moved by up to "+count(n.Shifts, "pixel"))
	}
	t.known("records", records)
}

// join lists what there is.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}

// Plan writes a plan. Numerics is nil for inference. The cost is what the job is
// expected to cost in money, nil where that is not known.
func Plan(w io.Writer, n *job.Numerics, r job.Resources, cost *float64) error {
	t := newTable(w)
	if n != nil {
		t.row("data set", fmt.Sprintf("%s  %s training and %s test records of %dx%dx%d, %s",
			n.Dataset.Name, thousands(n.Dataset.Train), thousands(n.Dataset.Test),
			n.Dataset.Height, n.Dataset.Width, n.Dataset.Channels, count(n.Dataset.Classes, "class")))
		t.row("replicas", fmt.Sprintf("%d, local batch %d (batch %d)", n.Replicas, n.LocalBatch, n.Batch))
		if n.Sync == job.SyncStep {
			t.row("steps", fmt.Sprintf("%d (%s of %d), gradients averaged in each: %s",
				n.Steps, count(n.Epochs, "epoch"), n.StepsPerEpoch, count(n.Rounds(), "round")))
			t.row("optimizer", fmt.Sprintf("%s, learning rate %g, on the averaged gradients", optimizerName(n.Local.Kind), n.Local.LearningRate))
		} else {
			t.row("steps", fmt.Sprintf("%d of each replica (%s of %d), averaged every %d: %s",
				n.Steps, count(n.Epochs, "epoch"), n.StepsPerEpoch, n.RoundSteps, count(n.Rounds(), "round")))
			t.row("local", fmt.Sprintf("%s, learning rate %g, moments averaged with the weights", optimizerName(n.Local.Kind), n.Local.LearningRate))
			outer := fmt.Sprintf("Nesterov on the averaged change, rate %g, momentum %g", n.Outer.LearningRate, n.Outer.Momentum)
			if n.Outer.Momentum == 0 {
				outer = "none: weights are averaged as they are"
			}
			t.row("outer", outer)
		}
		trainingRows(t, *n)
		t.row("kernels", n.KernelSet)
	}
	threads := ""
	if r.Threads > 1 {
		threads = fmt.Sprintf(" with %d threads", r.Threads)
	}
	t.row("containers", fmt.Sprintf("%d of %v%s, %v an invocation", r.Containers, r.Memory, threads, r.Timeout))
	if r.Budget > 0 {
		t.row("slices", fmt.Sprintf("at most %v, then the state is handed over", r.Budget))
	} else {
		t.row("slices", "none: training is one invocation")
	}
	t.row("time", fmt.Sprintf("about %.1f s", r.Seconds))
	if r.GBSeconds > 0 {
		text := fmt.Sprintf("about %.2f GB-seconds", r.GBSeconds)
		if cost != nil {
			text += ", " + money(*cost) + " in money"
		}
		t.row("cost", text)
	}
	if r.AccuracyNote != "" {
		t.row("accuracy", r.AccuracyNote)
	}
	for _, line := range r.Explanation {
		t.row("why", line)
	}
	if err := t.flush(); err != nil {
		return err
	}
	t = newPart(w)
	t.row("role", "fit", "pkg", "dta", "mod", "saf", "memory")
	for _, role := range roleOrder {
		if e, ok := r.Roles[role]; ok {
			t.row(role, e.Fit, e.Package, e.Data, e.Model, e.Safety, e.Total())
		}
	}
	return t.flush()
}

// ModelRow is one line of a list of models.
type ModelRow struct {
	Digest     string    `json:"digest"`
	Name       string    `json:"name"`
	Dataset    string    `json:"dataset"`
	Parameters int       `json:"parameters"`
	Accuracy   float64   `json:"accuracy"`
	Epochs     int       `json:"epochs"`
	Replicas   int       `json:"replicas"`
	Job        job.ID    `json:"job"`
	Created    time.Time `json:"created"`
}

// Models writes a list of models.
func Models(w io.Writer, rows []ModelRow) error {
	t := newTable(w)
	t.row("MODEL", "DATA SET", "NAME", "PARAMETERS", "ACCURACY", "EPOCHS", "REPLICAS", "CREATED (UTC)")
	for _, m := range rows {
		t.row(Digest(m.Digest), m.Dataset, m.Name, thousands(m.Parameters), percent(m.Accuracy), m.Epochs, m.Replicas,
			m.Created.UTC().Format("2006-01-02 15:04"))
	}
	return t.flush()
}

// Jobs writes a list of jobs.
func Jobs(w io.Writer, rows []job.Record) error {
	t := newTable(w)
	t.row("JOB", "KIND", "DATA SET", "STATUS", "ACCURACY", "CONTAINERS", "FAILED", "SECONDS", "ERROR")
	for _, r := range rows {
		accuracy := "-"
		if r.Records > 0 {
			accuracy = percent(r.Accuracy)
		}
		t.row(r.Job, r.Kind, r.Dataset, r.Status, accuracy, r.Metrics.Containers, r.Metrics.FailedContainers,
			fmt.Sprintf("%.2f", r.Metrics.DurationSeconds), shorten(r.Error))
	}
	return t.flush()
}

// DatasetRow is one line of the catalogue of data sets.
type DatasetRow struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	Shape       string `json:"shape"`
	Classes     int    `json:"classes"`
	Train       int    `json:"train"`
	Test        int    `json:"test"`
	Licence     string `json:"licence"`
	Attribution string `json:"attribution"`
	Source      string `json:"source"`
	// Path is where it was found; where it was not, DownloadBytes is what loading
	// it downloads. What is inside the program has neither.
	Path          string `json:"path,omitempty"`
	DownloadBytes int64  `json:"download_bytes,omitempty"`
}

func (d DatasetRow) where() string {
	switch {
	case d.Path != "":
		return d.Path
	case d.DownloadBytes > 0:
		return fmt.Sprintf("to download, %.1f MB", float64(d.DownloadBytes)/1e6)
	default:
		return "built in"
	}
}

// Datasets writes the catalogue.
func Datasets(w io.Writer, rows []DatasetRow) error {
	t := newTable(w)
	t.row("DATA SET", "SHAPE", "CLASSES", "TRAIN", "TEST", "LICENCE", "WHERE", "TITLE")
	for _, d := range rows {
		t.row(d.Name, d.Shape, d.Classes, thousands(d.Train), thousands(d.Test), orNone(d.Licence), d.where(), d.Title)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, d := range rows {
		if d.Attribution == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s\n", oneLine(fmt.Sprintf("%s: %s (%s)", d.Name, d.Attribution, d.Source))); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

// CheckRow is one line of a check of a platform's limits.
type CheckRow struct {
	What   string `json:"what"`
	Want   string `json:"want"`
	Got    string `json:"got"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail"`
}

// Checks writes what a check found.
func Checks(w io.Writer, rows []CheckRow) error {
	t := newTable(w)
	t.row("CHECK", "EXPECTED", "SEEN", "", "DETAIL")
	for _, r := range rows {
		verdict := "ok"
		if !r.Passed {
			verdict = "WRONG"
		}
		t.row(r.What, r.Want, r.Got, verdict, r.Detail)
	}
	return t.flush()
}

// Digest shortens a digest for people.
func Digest(d string) string {
	if len(d) > digestDigits {
		return d[:digestDigits]
	}
	return d
}

// optimizerName is how people write the name of an optimizer.
func optimizerName(kind string) string {
	switch kind {
	case "adam":
		return "Adam"
	case "adamw":
		return "AdamW"
	case "sgd":
		return "SGD"
	}
	return kind
}

func orNone(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func percent(fraction float64) string { return fmt.Sprintf("%.2f %%", 100*fraction) }

func count(n int, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "s"):
		return fmt.Sprintf("%d %ses", n, noun)
	default:
		return fmt.Sprintf("%d %ss", n, noun)
	}
}

func thousands(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// money has four digits that count, and no exponent: sums are often far below a cent.
func money(v float64) string {
	decimals := 2
	if v > 0 {
		decimals = min(20, max(decimals, 3-int(math.Floor(math.Log10(v)))))
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}
