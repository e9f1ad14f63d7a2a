// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"

	"disdel/internal/control"
	"disdel/internal/job"
	"disdel/internal/report"
	"disdel/internal/worker"
)

// progress shows people how far a job is: a bar on a terminal, else a line at
// every change of phase and now and then while it trains.
type progress struct {
	w        io.Writer
	quiet    bool
	terminal bool
	bar      *progressbar.ProgressBar

	noted  bool // what the plan expects has been said
	told   bool // that the worker is of another version has been said
	phase  string
	lastAt time.Time
}

const lineInterval = 5 * time.Second

func (a *app) newProgress(quiet bool) *progress {
	return &progress{w: a.stderr, quiet: quiet, terminal: a.terminal && a.getenv("TERM") != "dumb"}
}

// end leaves a clean line to whatever is written next.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
}

func (p *progress) show(s control.State) {
	if s.Probe != nil && !p.told {
		p.told = true
		if theirs, own := s.Probe.Version, worker.Version(); theirs != own {
			fmt.Fprintf(p.w, "disdel: the worker is of version %s, this program of %s: build both from the same source, or what one asks the other may not know\n",
				printable(theirs), own)
		}
	}
	if p.quiet {
		return
	}
	if s.Resources != nil && !p.noted {
		p.noted = true
		if note := s.Resources.AccuracyNote; note != "" {
			fmt.Fprintln(p.w, "disdel: accuracy:", note)
		}
	}
	now := s.Progress()
	if now.Phase == "probe" && now.Running == 0 {
		return // nothing is being measured, and perhaps nothing will be
	}
	if now.Phase == "data" {
		return // most often for a moment
	}
	line := describe(now)
	if left, ok := s.Left(time.Now()); ok && now.Phase == "train" {
		line += ", about " + about(left) + " left"
	}
	if now.Phase == "done" && s.Finished.Status != job.Succeeded {
		line = string(s.Finished.Status)
	}
	if p.terminal {
		p.showBar(now, line)
		return
	}
	if now.Phase != p.phase || now.Phase == "train" && time.Since(p.lastAt) >= lineInterval {
		p.phase, p.lastAt = now.Phase, time.Now()
		fmt.Fprintln(p.w, "disdel:", line)
	}
}

func (p *progress) showBar(now control.Progress, line string) {
	if now.Phase != "train" {
		if now.Phase == "done" {
			p.end()
		}
		return
	}
	if p.bar == nil {
		p.bar = progressbar.NewOptions(now.Total, progressbar.OptionSetWriter(p.w), progressbar.OptionSetWidth(30),
			progressbar.OptionShowCount(), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish(),
			progressbar.OptionThrottle(50*time.Millisecond))
	}
	p.bar.Describe(line)
	_ = p.bar.Set(now.Done)
}

// about writes a time as people say one.
func about(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return max(time.Second, d.Round(time.Second)).String()
	case d < 10*time.Minute:
		return d.Round(5 * time.Second).String()
	default:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
}

func describe(now control.Progress) string {
	switch now.Phase {
	case "probe":
		return "measuring a worker"
	case "train":
		text := fmt.Sprintf("training, round %d of %d", now.Round+1, now.Rounds)
		if now.Loss > 0 {
			text += fmt.Sprintf(", loss %.4f", now.Loss)
		}
		return text
	case "evaluate":
		return "evaluating on the test part"
	default:
		return "done"
	}
}

// modelRow describes a model for a list.
func modelRow(m control.Model) report.ModelRow {
	return report.ModelRow{
		Digest: m.Digest, Name: m.Name, Dataset: m.Dataset, Parameters: m.Parameters, Accuracy: m.Accuracy,
		Epochs: m.Epochs, Replicas: m.Replicas, Job: m.Job, Created: m.Created,
	}
}
