// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bytes"
	"strings"
	"time"
)

// Tail keeps the last lines that a container printed since the last mark: what
// drivers show as its log. It is not safe for concurrent use.
type Tail struct {
	max     int
	kept    []Line
	streams [2]tailStream // standard output, standard error
}

type tailStream struct {
	partial  []byte
	cut      bool // the rest of the partial line is dropped
	sentinel bool
}

// lineMax is where a line is cut.
const lineMax = 1 << 10

// NewTail makes one that keeps at most so many lines, each cut at 1 KB.
func NewTail(lines int) *Tail { return &Tail{max: lines} }

// Add takes in what a stream printed.
func (t *Tail) Add(stderr bool, text []byte, now time.Time) {
	s := t.stream(stderr)
	for len(text) > 0 {
		line, rest, whole := bytes.Cut(text, []byte{'\n'})
		if !s.cut {
			s.partial = append(s.partial, line[:min(len(line), lineMax+1)]...)
		}
		if len(s.partial) > lineMax {
			s.partial, s.cut = append(s.partial[:lineMax], "..."...), true
		}
		if whole {
			t.flush(stderr, now)
		}
		text = rest
	}
}

func (t *Tail) stream(stderr bool) *tailStream {
	if stderr {
		return &t.streams[1]
	}
	return &t.streams[0]
}

func (t *Tail) flush(stderr bool, now time.Time) {
	s := t.stream(stderr)
	line := strings.ToValidUTF8(string(s.partial), "?")
	s.partial, s.cut = s.partial[:0], false
	if line == Sentinel {
		s.sentinel = true
		return
	}
	if len(t.kept) == t.max {
		t.kept = append(t.kept[:0], t.kept[1:]...)
	}
	t.kept = append(t.kept, Line{Time: now, Stderr: stderr, Text: line})
}

// Mark forgets what was printed so far.
func (t *Tail) Mark() {
	t.kept, t.streams = t.kept[:0], [2]tailStream{}
}

// Lines returns what was printed since the mark, unfinished lines included.
func (t *Tail) Lines(now time.Time) []Line {
	lines := append([]Line(nil), t.kept...)
	for i := range t.streams {
		if partial := t.streams[i].partial; len(partial) > 0 {
			lines = append(lines, Line{Time: now, Stderr: i == 1, Text: strings.ToValidUTF8(string(partial), "?")})
		}
	}
	return lines
}

// Sentinels returns on how many streams the sentinel came since the mark.
func (t *Tail) Sentinels() (count int) {
	for i := range t.streams {
		if t.streams[i].sentinel {
			count++
		}
	}
	return count
}
