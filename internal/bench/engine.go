// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"disdel/internal/job"
)

// Modes of an engine's case.
const (
	ModeTrain = "train"
	ModeInfer = "infer"
)

// OwnEngine names this project's engine in results.
const OwnEngine = "disdel"

// EngineCase is a model, and how it is run.
type EngineCase struct {
	Model string `json:"model"`
	// Shape is that of a record, as HxWxC.
	Shape   string `json:"shape"`
	Batch   int    `json:"batch"`
	Threads int    `json:"threads"`
	Mode    string `json:"mode"`
	// Operations are floating point operations of one record.
	Operations float64 `json:"operations"`
}

// Burst is what an engine did at one go: one chunk of steps, or a whole run of
// many of which only the best and the median are known.
type Burst struct {
	// Best and Median are records a second.
	Best   float64 `json:"best"`
	Median float64 `json:"median"`
	// Took is the time of all steps of the burst, in seconds.
	Took float64 `json:"took_seconds"`
}

// Engine is what steps are timed of.
type Engine struct {
	Name    string
	Version string
	// Whole engines run all steps in one burst, WholeRuns times; the others go on
	// chunk after chunk.
	Whole bool
	// Open starts the engine in a process of its own, which has taken its first
	// step when Open returns. An error that wraps ErrAbsent says that the engine
	// cannot do this case.
	Open func(context.Context, EngineCase) (Stepper, error)
}

// WholeRuns is how often an engine runs that takes all steps in one burst.
const WholeRuns = 3

// ErrAbsent is wrapped by errors of engines that are not there, or that do not
// know a case. It is reported in place of a figure.
var ErrAbsent = errors.New("not there")

// Stepper is a running engine.
type Stepper interface {
	// Burst takes so many steps and times them.
	Burst(ctx context.Context, steps int) (Burst, error)
	// Start is the time from the start of the process to the end of its first
	// step, in seconds; 0 if unknown.
	Start() float64
	// Close ends it, and returns the high-water mark of its resident memory, 0 if
	// unknown.
	Close() (peak job.Bytes, err error)
}

// EngineRun is what one engine did in one case.
type EngineRun struct {
	Case    EngineCase `json:"case"`
	Engine  string     `json:"engine"`
	Version string     `json:"version,omitempty"`
	Steps   int        `json:"steps"`
	Bursts  []Burst    `json:"bursts"`
	Start   float64    `json:"start_seconds"`
	Peak    job.Bytes  `json:"memory_peak_bytes"`
	// Absent says why there are no figures.
	Absent string `json:"absent,omitempty"`
	// Roofline is the rate of multiply-adds in registers alone that was measured
	// between the bursts, in floating point operations a second; its median.
	Roofline float64 `json:"roofline_flops,omitempty"`
}

// EngineSteps says how long engines run.
type EngineSteps struct {
	// Steps are all that are timed of each engine, Chunk those that are timed at
	// once.
	Steps, Chunk int
}

// RunEngines runs every case. Within a case all engines are alive, and take turns:
// a chunk of each, and the roofline's, before the next chunk of any; those that
// take all steps at once have theirs spread evenly between. A whole case is handed
// to keep when it is done.
func RunEngines(ctx context.Context, cases []EngineCase, engines []Engine, steps EngineSteps, roofline func(context.Context, EngineCase) (float64, error), keep func([]EngineRun) error) error {
	for _, c := range cases {
		runs, err := runCase(ctx, c, engines, steps, roofline)
		if err != nil {
			return fmt.Errorf("%s: %w", c, err)
		}
		if err := keep(runs); err != nil {
			return err
		}
	}
	return nil
}

// String is one line.
func (c EngineCase) String() string {
	return fmt.Sprintf("%s %s, batch %d, %d threads, %s", c.Model, c.Shape, c.Batch, c.Threads, c.Mode)
}

func runCase(ctx context.Context, c EngineCase, engines []Engine, steps EngineSteps, roofline func(context.Context, EngineCase) (float64, error)) (runs []EngineRun, err error) {
	running := make([]Stepper, len(engines))
	runs = make([]EngineRun, len(engines))
	defer func() {
		for i, s := range running {
			if s == nil {
				continue
			}
			peak, closed := s.Close()
			runs[i].Peak = peak
			err = errors.Join(err, closed)
		}
	}()
	for i, e := range engines {
		runs[i] = EngineRun{Case: c, Engine: e.Name, Version: e.Version}
		s, err := e.Open(ctx, c)
		switch {
		case errors.Is(err, ErrAbsent):
			runs[i].Absent = err.Error()
		case err != nil:
			return runs, fmt.Errorf("%s: %w", e.Name, err)
		default:
			running[i], runs[i].Start = s, s.Start()
		}
	}
	chunks := max(1, steps.Steps/steps.Chunk)
	var peaks []float64
	for at := range chunks {
		for i, s := range running {
			if s == nil {
				continue
			}
			n := steps.Chunk
			if engines[i].Whole {
				if !wholeTurn(at, chunks) {
					continue
				}
				n = chunks * steps.Chunk
			}
			burst, err := s.Burst(ctx, n)
			if err != nil {
				return runs, fmt.Errorf("%s: %w", engines[i].Name, err)
			}
			runs[i].Bursts, runs[i].Steps = append(runs[i].Bursts, burst), runs[i].Steps+n
		}
		peak, err := roofline(ctx, c)
		if err != nil {
			return runs, fmt.Errorf("roofline: %w", err)
		}
		peaks = append(peaks, peak)
	}
	for i := range runs {
		runs[i].Roofline = SpreadOf(peaks).Median
	}
	return runs, nil
}

// wholeTurn says whether a whole run follows a chunk, such that there are
// WholeRuns of them, or as many as there are chunks if that is less.
func wholeTurn(at, chunks int) bool {
	runs := min(WholeRuns, chunks)
	return (at+1)*runs/chunks > at*runs/chunks
}

// EngineRow sums up an engine's run in one case.
type EngineRow struct {
	Run EngineRun `json:"run"`
	// Best is the fastest chunk, the others are over the medians of bursts; all
	// are records a second.
	Best  float64 `json:"best"`
	Rates Spread  `json:"rates"`
	// Times is by how much this project's engine is faster than this one, by the
	// medians; 0 if either is unknown.
	Times float64 `json:"times"`
	// FLOPS is the median's rate in floating point operations a second, Share
	// what that is of the roofline.
	FLOPS float64 `json:"flops"`
	Share float64 `json:"share"`
}

// SummariseEngines makes a row of every run.
func SummariseEngines(runs []EngineRun) []EngineRow {
	rows := make([]EngineRow, len(runs))
	own := map[EngineCase]float64{}
	for i, r := range runs {
		row := EngineRow{Run: r}
		var medians []float64
		for _, b := range r.Bursts {
			row.Best = max(row.Best, b.Best)
			medians = append(medians, b.Median)
		}
		row.Rates = SpreadOf(medians)
		row.FLOPS = row.Rates.Median * r.Case.Operations
		if r.Roofline > 0 {
			row.Share = row.FLOPS / r.Roofline
		}
		if r.Engine == OwnEngine {
			own[r.Case] = row.Rates.Median
		}
		rows[i] = row
	}
	for i := range rows {
		if median := rows[i].Rates.Median; median > 0 {
			rows[i].Times = own[rows[i].Run.Case] / median
		}
	}
	return rows
}

// ParsePrototype reads the line that the prototype of the kernels prints at its
// end. steps and batch are what it was told.
func ParsePrototype(output string, steps, batch int) (Burst, error) {
	field := func(name string) (float64, error) {
		_, rest, found := strings.Cut(output, " "+name+"=")
		text, _, ended := strings.Cut(rest, "/s")
		v, err := strconv.ParseFloat(text, 64)
		if !found || !ended || err != nil || !(v > 0) || math.IsInf(v, 0) {
			return 0, fmt.Errorf("%w: the prototype printed no %s: %.200q", ErrOutput, name, output)
		}
		return v, nil
	}
	best, err := field("best")
	if err != nil {
		return Burst{}, err
	}
	median, err := field("median")
	if err != nil {
		return Burst{}, err
	}
	return Burst{Best: best, Median: median, Took: float64(steps*batch) / median}, nil
}
