// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"disdel/internal/job"
)

// fakeStepper writes down what it is asked for.
type fakeStepper struct {
	name string
	log  *[]string
	rate float64
	err  error
}

func (s *fakeStepper) Burst(_ context.Context, steps int) (Burst, error) {
	*s.log = append(*s.log, fmt.Sprint(s.name, steps))
	s.rate++
	return Burst{Best: 2 * s.rate, Median: s.rate, Took: 1}, s.err
}
func (s *fakeStepper) Start() float64 { return 0.5 }
func (s *fakeStepper) Close() (job.Bytes, error) {
	*s.log = append(*s.log, s.name+"closed")
	return job.MB, nil
}

func TestRunEngines_TakeTurns(t *testing.T) {
	var log []string
	engine := func(name string, whole bool, rate float64, err error) Engine {
		return Engine{Name: name, Whole: whole, Open: func(context.Context, EngineCase) (Stepper, error) {
			return &fakeStepper{name, &log, rate, err}, nil
		}}
	}
	engines := []Engine{
		engine(OwnEngine, false, 100, nil), engine("b", false, 10, nil), engine("w", true, 1, nil),
		{Name: "c", Open: func(context.Context, EngineCase) (Stepper, error) {
			return nil, fmt.Errorf("%w: no module", ErrAbsent)
		}},
	}
	c := EngineCase{Model: "cnn", Shape: "8x8x1", Batch: 4, Threads: 1, Mode: ModeTrain, Operations: 2}
	roofline := func(context.Context, EngineCase) (float64, error) { log = append(log, "roof"); return 800, nil }
	var runs []EngineRun
	err := RunEngines(t.Context(), []EngineCase{c}, engines, EngineSteps{Steps: 40, Chunk: 10}, roofline, func(r []EngineRun) error {
		runs = append(runs, r...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields("disdel10 b10 roof disdel10 b10 w40 roof disdel10 b10 w40 roof disdel10 b10 w40 roof disdelclosed bclosed wclosed")
	if !slices.Equal(log, want) {
		t.Errorf("order %q; want %q", log, want)
	}
	rows := SummariseEngines(runs)
	own, b, w, absent := rows[0], rows[1], rows[2], rows[3]
	if own.Rates != (Spread{101, 102.5, 104}) || own.Best != 208 || own.Times != 1 || own.FLOPS != 205 || own.Share != 205.0/800 || own.Run.Peak != job.MB || own.Run.Start != 0.5 {
		t.Errorf("own: %+v", own)
	}
	if b.Times != 102.5/12.5 || b.Run.Steps != 40 || w.Run.Steps != 120 || w.Rates.Median != 3 {
		t.Errorf("others: %+v and %+v", b, w)
	}
	if absent.Run.Absent != "not there: no module" || absent.Times != 0 || absent.Rates.Median != 0 {
		t.Errorf("absent: %+v", absent)
	}

	broken := errors.New("broken")
	log = nil
	err = RunEngines(t.Context(), []EngineCase{c}, []Engine{engine("a", false, 1, nil), engine("b", false, 1, broken)}, EngineSteps{10, 10}, roofline,
		func([]EngineRun) error { return nil })
	if !errors.Is(err, broken) || !slices.Contains(log, "aclosed") || !slices.Contains(log, "bclosed") {
		t.Errorf("after an error: %v, %q", err, log)
	}
}

func TestWholeTurn(t *testing.T) {
	for chunks := 1; chunks < 50; chunks++ {
		turns := 0
		for at := range chunks {
			if wholeTurn(at, chunks) {
				turns++
			}
		}
		if turns != min(WholeRuns, chunks) {
			t.Errorf("%d whole runs among %d chunks", turns, chunks)
		}
	}
}

func TestParsePrototype(t *testing.T) {
	const line = "  step   100: 1/s\ngoasm hw=28 c=1 b=64 thr=1 isa=avx2 fuse=true ftz=thread best=26500/s median=25600/s mean=25000/s percpu=1/cpu-s\n"
	b, err := ParsePrototype(line, 100, 64)
	if err != nil || b.Best != 26500 || b.Median != 25600 || b.Took != 0.25 {
		t.Errorf("%+v, %v", b, err)
	}
	for _, wrong := range []string{"", "best=1/s", " best=1/s", " best=x/s median=1/s", " best=1/s median=-1/s", " best=1/s median=NaN/s", " best=1 median=1"} {
		if _, err := ParsePrototype(wrong, 1, 1); !errors.Is(err, ErrOutput) {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

func TestLineReader(t *testing.T) {
	r := NewLineReader(strings.NewReader("a warning\n\n" + `{"event":"ready","framework":"jax","version":"1","extra":[1]}` + "\n" +
		`{"event":"chunk","steps":3,"seconds":0.5}` + "\n" + `{"event":"missing","framework":"jax","error":"no"}` + "\n" + `{"event":"end","peak_bytes":7}`))
	if l, err := r.Expect(EventReady); err != nil || l.Version != "1" {
		t.Errorf("%+v, %v", l, err)
	}
	if l, err := r.Expect(EventChunk); err != nil || l.Steps != 3 || l.Seconds != 0.5 {
		t.Errorf("%+v, %v", l, err)
	}
	if _, err := r.Expect(EventReady); !errors.Is(err, ErrAbsent) || !strings.Contains(err.Error(), ": no") {
		t.Errorf("missing: %v", err)
	}
	if _, err := r.Expect(EventReady); !errors.Is(err, ErrOutput) {
		t.Errorf("the end in place of ready: %v", err)
	}
	if _, err := r.Expect(EventReady); !errors.Is(err, ErrOutput) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	for name, text := range map[string]string{
		"no JSON":     "{",
		"event":       `{"event":"chunks"}`,
		"no steps":    `{"event":"chunk","seconds":1}`,
		"no time":     `{"event":"chunk","steps":1}`,
		"past":        `{"event":"chunk","steps":1,"seconds":-1}`,
		"peak":        `{"event":"end","peak_bytes":-1}`,
		"steps":       `{"event":"end","steps":-1}`,
		"wrong type":  `{"event":"chunk","steps":"1"}`,
		"long line":   `{"event":"` + strings.Repeat("x", MaxLineBytes) + `"}`,
		"only noise":  strings.Repeat("noise\n", maxNoise+1),
		"not a field": `{"event":1}`,
	} {
		if _, err := NewLineReader(strings.NewReader(text)).Next(); !errors.Is(err, ErrOutput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzLine: whatever an engine prints, it is an error or makes sense, and is short.
func FuzzLine(f *testing.F) {
	for _, text := range []string{`{"event":"ready"}`, `{"event":"chunk","steps":1,"seconds":1e-9}`, "x\n{}", `{"event":"missing","error":"\ud800"}`, " best=1/s median=2/s"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if b, err := ParsePrototype(text, 100, 64); err == nil && !(b.Best > 0 && b.Median > 0) {
			t.Errorf("burst %+v", b)
		}
		l, err := NewLineReader(strings.NewReader(text)).Next()
		switch {
		case err != nil && !errors.Is(err, ErrOutput) && !errors.Is(err, io.EOF):
			t.Errorf("error of no kind: %v", err)
		case err != nil && len(err.Error()) > 2000:
			t.Errorf("error of %d bytes", len(err.Error()))
		case err == nil && (len(l.Error) > maxText || len(l.Version) > maxText || l.Event == EventChunk && !(l.Seconds > 0 && l.Steps > 0)):
			t.Errorf("line %+v", l)
		}
	})
}
