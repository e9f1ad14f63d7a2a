// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"

	"disdel/internal/job"
)

const (
	// MaxLineBytes bounds a line that an engine prints.
	MaxLineBytes = 64 << 10
	// maxNoise is how many lines that are no JSON object are skipped before one.
	maxNoise = 1000
	// maxText is what is kept of a text that an engine prints.
	maxText = 200
)

// ErrOutput is wrapped by errors about what an engine printed.
var ErrOutput = errors.New("bad output of an engine")

// Events of engines that are run step by step.
const (
	EventFound   = "found"   // a framework that is installed
	EventMissing = "missing" // one that is not
	EventReady   = "ready"   // the first step was taken
	EventChunk   = "chunk"   // steps were timed
	EventSummary = "summary" // rates over all chunks, of an engine that was not told each
	EventEnd     = "end"
)

// Line is one line of an engine's output. Which fields count depends on the event.
type Line struct {
	Event     string    `json:"event"`
	Framework string    `json:"framework,omitempty"` // found, missing, ready
	Version   string    `json:"version,omitempty"`   // found, ready
	Error     string    `json:"error,omitempty"`     // missing
	Steps     int       `json:"steps,omitempty"`     // chunk, end
	Seconds   float64   `json:"seconds,omitempty"`   // chunk
	Peak      job.Bytes `json:"peak_bytes,omitempty"`
	// Operations of a chunk of the roofline, in floating point operations.
	Operations float64 `json:"operations,omitempty"`
}

// LineReader reads what an engine prints.
type LineReader struct{ scanner *bufio.Scanner }

// NewLineReader reads from r.
func NewLineReader(r io.Reader) *LineReader {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 0, 4<<10), MaxLineBytes)
	return &LineReader{scanner}
}

// Next returns the next line that is a JSON object; libraries print other things
// too. The end of the output is io.EOF, anything that is wrong ErrOutput.
func (r *LineReader) Next() (Line, error) {
	for range maxNoise {
		if !r.scanner.Scan() {
			if err := r.scanner.Err(); err != nil {
				return Line{}, fmt.Errorf("%w: %w", ErrOutput, err)
			}
			return Line{}, io.EOF
		}
		text := r.scanner.Bytes()
		if len(text) == 0 || text[0] != '{' {
			continue
		}
		var l Line
		if err := json.Unmarshal(text, &l); err != nil {
			return Line{}, fmt.Errorf("%w: %w: %.*q", ErrOutput, err, maxText, text)
		}
		return l, l.check()
	}
	return Line{}, fmt.Errorf("%w: more than %d lines that are no JSON object", ErrOutput, maxNoise)
}

// check refuses what no engine measures, and cuts texts.
func (l *Line) check() error {
	for _, text := range []*string{&l.Framework, &l.Version, &l.Error} {
		if *text = strings.ToValidUTF8(*text, "?"); len(*text) > maxText {
			*text = strings.ToValidUTF8((*text)[:maxText], "")
		}
	}
	switch l.Event {
	case EventFound, EventMissing, EventReady, EventSummary, EventEnd:
	case EventChunk:
		if l.Steps < 1 || !(l.Seconds > 0) || math.IsInf(l.Seconds, 0) {
			return fmt.Errorf("%w: %d steps in %v s", ErrOutput, l.Steps, l.Seconds)
		}
	default:
		return fmt.Errorf("%w: event %.*q", ErrOutput, maxText, l.Event)
	}
	if l.Peak < 0 || l.Steps < 0 || l.Operations < 0 {
		return fmt.Errorf("%w: %d steps, peak %d, %v operations", ErrOutput, l.Steps, l.Peak, l.Operations)
	}
	return nil
}

// Expect is the next line, which must be of that event. One that says that the
// engine is not there is ErrAbsent.
func (r *LineReader) Expect(event string) (Line, error) {
	l, err := r.Next()
	switch {
	case errors.Is(err, io.EOF):
		return l, fmt.Errorf("%w: it ended before %q", ErrOutput, event)
	case err != nil:
		return l, err
	case l.Event == EventMissing:
		return l, fmt.Errorf("%w: %s", ErrAbsent, l.Error)
	case l.Event != event:
		return l, fmt.Errorf("%w: %q, want %q", ErrOutput, l.Event, event)
	}
	return l, nil
}
