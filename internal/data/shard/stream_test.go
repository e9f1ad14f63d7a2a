// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// world is a cut data set whose records carry their own position in the global
// order, so that a batch says which records it has.
type world struct {
	records, shardRecords, recordBytes int
	loads                              int
}

func (w *world) load(_ context.Context, p Piece, dst *Window) error {
	w.loads++
	for i := p.From; i < p.To; i++ {
		if dst.Pick != nil && !slices.Contains(dst.Pick, uint32(i-p.From)) {
			continue
		}
		id := p.Shard*w.shardRecords + i
		dst.Labels = append(dst.Labels, uint16(id))
		var record [8]byte
		binary.LittleEndian.PutUint64(record[:], uint64(id))
		for b := range w.recordBytes {
			dst.Pixels = append(dst.Pixels, record[b%8])
		}
	}
	return nil
}

// ids lists the records of a batch and checks that pixels belong to labels.
func (w *world) ids(t interface{ Fatalf(string, ...any) }, b Batch) []int {
	if len(b.Pixels) != b.Len()*w.recordBytes {
		t.Fatalf("%d bytes of pixels for %d records", len(b.Pixels), b.Len())
	}
	var ids []int
	for i, label := range b.Labels {
		record := b.Pixels[i*w.recordBytes : (i+1)*w.recordBytes]
		if record[0] != byte(label) || w.recordBytes > 1 && record[1] != byte(label>>8) {
			t.Fatalf("record %d has label %d and pixels % x", i, label, record)
		}
		ids = append(ids, int(label))
	}
	return ids
}

func drawWorld(t *rapid.T) (*world, StreamSpec) {
	w := &world{
		records:      rapid.IntRange(0, 120).Draw(t, "records"),
		shardRecords: rapid.IntRange(1, 40).Draw(t, "shardRecords"),
		recordBytes:  rapid.IntRange(1, 9).Draw(t, "recordBytes"),
	}
	replicas := rapid.IntRange(1, 6).Draw(t, "replicas")
	replica := rapid.IntRange(0, replicas-1).Draw(t, "replica")
	return w, StreamSpec{
		Pieces:        Pieces(w.records, w.shardRecords, replicas, replica),
		RecordBytes:   w.recordBytes,
		Seed:          rapid.Uint64().Draw(t, "seed"),
		Replica:       replica,
		InOrder:       rapid.Bool().Draw(t, "inOrder"),
		Window:        rapid.IntRange(0, 45).Draw(t, "window"),
		Batch:         rapid.IntRange(1, 30).Draw(t, "batch"),
		StepsPerEpoch: rapid.IntRange(1, 12).Draw(t, "stepsPerEpoch"),
	}
}

func newStream(t interface{ Fatal(...any) }, spec StreamSpec) *Stream {
	s, err := NewStream(spec)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Batches are those of a plain description: the epoch's whole order, written
// out and divided.
func TestStream_MatchesTheObviousTwin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, spec := drawWorld(t)
		s := newStream(t, spec)
		want := WindowBytes(spec.Pieces, spec.RecordBytes) + BatchBytes(spec.Batch, spec.RecordBytes)
		if most := largest(spec.Pieces); spec.Window > 0 && spec.Window < most {
			// Fewer records of pixels and label, and a list of 4 bytes for each held.
			want -= int64((most - spec.Window) * (spec.RecordBytes + 2))
			want += int64(4 * spec.Window)
		}
		if got := s.Bytes(); got != want || spec.Bytes() != want {
			t.Fatalf("the stream holds %d bytes, predicted %d, want %d", got, spec.Bytes(), want)
		}
		for epoch := range 3 {
			var order []int
			visit := make([]uint32, len(spec.Pieces))
			Order{spec.Seed, spec.Replica}.Pieces(epoch, visit)
			for i := range spec.Pieces {
				k := int(visit[i])
				if spec.InOrder {
					k = i
				}
				p := spec.Pieces[k]
				inside := make([]uint32, p.Len())
				Order{spec.Seed, spec.Replica}.Records(epoch, k, inside)
				for j := range inside {
					at := int(inside[j])
					if spec.InOrder {
						at = j
					}
					order = append(order, p.Shard*w.shardRecords+p.From+at)
				}
			}
			for step := range spec.StepsPerEpoch {
				b, err := s.Next(t.Context(), w.load)
				if err != nil {
					t.Fatal(err)
				}
				if b.Epoch != epoch || b.Step != epoch*spec.StepsPerEpoch+step {
					t.Fatalf("epoch %d, step %d, want %d, %d", b.Epoch, b.Step, epoch, step)
				}
				from := min(len(order), step*spec.Batch)
				to := min(len(order), from+spec.Batch)
				if got := w.ids(t, b); !slices.Equal(got, order[from:to]) {
					t.Fatalf("step %d has records %v, want %v", b.Step, got, order[from:to])
				}
			}
		}
	})
}

func TestStream_EpochHasEveryRecordOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, spec := drawWorld(t)
		spec.StepsPerEpoch = Records(spec.Pieces)/spec.Batch + 1 + rapid.IntRange(0, 2).Draw(t, "more")
		s := newStream(t, spec)
		var want []int
		for _, p := range spec.Pieces {
			for i := p.From; i < p.To; i++ {
				want = append(want, p.Shard*w.shardRecords+i)
			}
		}
		for range 2 {
			w.loads = 0
			var got []int
			for range spec.StepsPerEpoch {
				b, err := s.Next(t.Context(), w.load)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, w.ids(t, b)...)
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Fatalf("an epoch sees %v, want %v", got, want)
			}
			most := 0
			for _, p := range spec.Pieces {
				if spec.Window == 0 {
					most++
				} else {
					most += (p.Len() + spec.Window - 1) / spec.Window
				}
			}
			if w.loads > most {
				t.Fatalf("%d loads of %d pieces through a window of %d", w.loads, len(spec.Pieces), spec.Window)
			}
		}
	})
}

// Any cut, any repeat and any failed load leaves the same batches.
func TestStream_SeekGivesWhatARunGives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, spec := drawWorld(t)
		steps := 3 * spec.StepsPerEpoch
		whole := newStream(t, spec)
		var want [][]int
		for range steps {
			b, err := whole.Next(t.Context(), w.load)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, w.ids(t, b))
		}

		lost := errors.New("lost")
		failing := func(ctx context.Context, p Piece, dst *Window) error {
			if rapid.IntRange(0, 3).Draw(t, "fail") == 0 {
				// A load that fails leaves anything behind.
				dst.Labels = append(dst.Labels, 9)
				dst.Pixels = append(dst.Pixels, 9)
				return lost
			}
			return w.load(ctx, p, dst)
		}
		s := newStream(t, spec)
		for range rapid.IntRange(1, 6).Draw(t, "jumps") {
			at := rapid.IntRange(0, steps-1).Draw(t, "at")
			if rapid.Bool().Draw(t, "fresh") {
				s = newStream(t, spec)
			}
			if err := s.Seek(at); err != nil {
				t.Fatal(err)
			}
			for to := rapid.IntRange(at, steps).Draw(t, "to"); s.Step() < to; {
				step := s.Step()
				b, err := s.Next(t.Context(), failing)
				if errors.Is(err, lost) && s.Step() == step {
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if got := w.ids(t, b); !slices.Equal(got, want[step]) {
					t.Fatalf("step %d has records %v, want %v", step, got, want[step])
				}
			}
		}
	})
}

func TestStream_IsTheDescribedOrder(t *testing.T) {
	g := readGolden(t)
	pieces := Pieces(50, 8, 3, 1)
	for i, p := range pieces {
		if got := [3]int{p.Shard, p.From, p.To}; got != g.Pieces[i] {
			t.Errorf("piece %d is %v, want %v", i, got, g.Pieces[i])
		}
	}
	w := &world{records: 50, shardRecords: 8, recordBytes: 2}
	s := newStream(t, StreamSpec{Pieces: pieces, RecordBytes: 2, Seed: 9, Replica: 1, Batch: 5, StepsPerEpoch: 4})
	for e, want := range g.Epochs {
		var got []int
		for range 4 {
			b, err := s.Next(t.Context(), w.load)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, w.ids(t, b)...)
		}
		if !slices.Equal(got, want) {
			t.Errorf("epoch %d sees %v, want %v", e, got, want)
		}
	}
}

func TestStream_ReadsShards(t *testing.T) {
	h := Header{Records: 10, H: 2, W: 2, C: 1, Classes: 5}
	pixels, labels := sample(h)
	encoded := encode(t, h, pixels, labels)
	load := func(_ context.Context, p Piece, dst *Window) error {
		rd, err := NewReader(bytes.NewReader(encoded))
		if err != nil {
			return err
		}
		return rd.ReadRange(p.From, p.To, dst)
	}
	for _, window := range []int{0, 1, 3, 4} {
		s := newStream(t, StreamSpec{
			Pieces: []Piece{{0, 0, 4}, {0, 6, 10}}, RecordBytes: 4, InOrder: true, Window: window, Batch: 3, StepsPerEpoch: 3,
		})
		var gotPixels []byte
		var gotLabels []uint16
		for range 3 {
			b, err := s.Next(t.Context(), load)
			if err != nil {
				t.Fatal(err)
			}
			gotPixels, gotLabels = append(gotPixels, b.Pixels...), append(gotLabels, b.Labels...)
		}
		if !bytes.Equal(gotPixels, append(bytes.Clone(pixels[:16]), pixels[24:]...)) ||
			!slices.Equal(gotLabels, append(slices.Clone(labels[:4]), labels[6:]...)) {
			t.Errorf("window of %d: records differ", window)
		}
	}
}

func TestStream_OnePieceIsLoadedOnce(t *testing.T) {
	w := &world{records: 20, shardRecords: 20, recordBytes: 3}
	s := newStream(t, StreamSpec{Pieces: Pieces(20, 20, 1, 0), RecordBytes: 3, Batch: 7, StepsPerEpoch: 3})
	for range 30 {
		if _, err := s.Next(t.Context(), w.load); err != nil {
			t.Fatal(err)
		}
	}
	if w.loads != 1 {
		t.Errorf("%d loads over ten epochs", w.loads)
	}
}

func TestStream_EmptyReplicaNeverLoads(t *testing.T) {
	s := newStream(t, StreamSpec{RecordBytes: 3, Batch: 4, StepsPerEpoch: 2})
	for step := range 5 {
		b, err := s.Next(t.Context(), nil)
		if err != nil || b.Len() != 0 || b.Step != step {
			t.Fatalf("step %d: %+v, %v", step, b, err)
		}
	}
}

func TestStream_AllocatesNothingPerBatch(t *testing.T) {
	w := &world{records: 97, shardRecords: 30, recordBytes: 16}
	s := newStream(t, StreamSpec{Pieces: Pieces(97, 30, 1, 0), RecordBytes: 16, Seed: 1, Batch: 8, StepsPerEpoch: 13})
	load := LoadFunc(w.load)
	ctx := t.Context()
	if n := testing.AllocsPerRun(200, func() {
		if _, err := s.Next(ctx, load); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a batch", n)
	}
}

func TestStream_RefusesWrongLoads(t *testing.T) {
	spec := StreamSpec{Pieces: []Piece{{0, 0, 2}}, RecordBytes: 2, Batch: 2, StepsPerEpoch: 1}
	for name, load := range map[string]LoadFunc{
		"nothing":    func(context.Context, Piece, *Window) error { return nil },
		"few pixels": func(_ context.Context, _ Piece, w *Window) error { w.Labels = w.Labels[:2]; return nil },
		"many pixels": func(_ context.Context, _ Piece, w *Window) error {
			*w = *NewWindow(2, 4)
			w.Labels = w.Labels[:2]
			w.Pixels = w.Pixels[:8]
			return nil
		},
		"own memory": func(_ context.Context, _ Piece, w *Window) error {
			w.Labels, w.Pixels = make([]uint16, 2, 9), make([]byte, 4, 9)
			return nil
		},
	} {
		s := newStream(t, spec)
		if _, err := s.Next(t.Context(), load); err == nil {
			t.Errorf("%s: no error", name)
		}
		if s.Bytes() != WindowBytes(spec.Pieces, 2)+BatchBytes(2, 2) {
			t.Errorf("%s: the stream now holds %d bytes", name, s.Bytes())
		}
		// The stream is none the worse for it.
		w := &world{shardRecords: 2, recordBytes: 2}
		if b, err := s.Next(t.Context(), w.load); err != nil || b.Len() != 2 || b.Step != 0 {
			t.Errorf("%s: afterwards %+v, %v", name, b, err)
		}
	}
}

func TestStreamSpec_Validate(t *testing.T) {
	good := StreamSpec{Pieces: []Piece{{0, 0, 2}}, RecordBytes: 2, Batch: 2, StepsPerEpoch: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*StreamSpec){
		"record":      func(s *StreamSpec) { s.RecordBytes = 0 },
		"huge record": func(s *StreamSpec) { s.RecordBytes = MaxBytes + 1 },
		"batch":       func(s *StreamSpec) { s.Batch = 0 },
		"huge batch":  func(s *StreamSpec) { s.Batch = MaxRecords + 1 },
		"batch bytes": func(s *StreamSpec) { s.Batch, s.RecordBytes, s.Pieces = MaxRecords, 8, nil },
		"steps":       func(s *StreamSpec) { s.StepsPerEpoch = 0 },
		"window":      func(s *StreamSpec) { s.Window = -1 },
		"shard":       func(s *StreamSpec) { s.Pieces = []Piece{{-1, 0, 2}} },
		"from":        func(s *StreamSpec) { s.Pieces = []Piece{{0, -1, 2}} },
		"empty piece": func(s *StreamSpec) { s.Pieces = []Piece{{0, 2, 2}} },
		"huge piece":  func(s *StreamSpec) { s.Pieces = []Piece{{0, 0, MaxRecords + 1}} },
		"piece bytes": func(s *StreamSpec) { s.Pieces, s.RecordBytes = []Piece{{0, 0, MaxRecords}}, 8 },
	} {
		spec := good
		change(&spec)
		if spec.Validate() == nil {
			t.Errorf("%s: no objection", name)
		}
		if _, err := NewStream(spec); err == nil {
			t.Errorf("%s: NewStream has no objection", name)
		}
	}
	if err := newStream(t, good).Seek(-1); err == nil {
		t.Error("seek to a negative step")
	}
}

func BenchmarkStream(b *testing.B) {
	const records, recordBytes, batch = 15000, 784, 64
	pixels := make([]byte, records*recordBytes)
	load := func(_ context.Context, p Piece, dst *Window) error {
		dst.Pixels = append(dst.Pixels, pixels[:p.Len()*recordBytes]...)
		dst.Labels = dst.Labels[:p.Len()]
		return nil
	}
	s, err := NewStream(StreamSpec{Pieces: Pieces(records, 1334, 1, 0), RecordBytes: recordBytes, Batch: batch, StepsPerEpoch: records/batch + 1})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(batch * recordBytes)
	for b.Loop() {
		if _, err := s.Next(b.Context(), load); err != nil {
			b.Fatal(err)
		}
	}
}

// TestNewStreamIn: memory of the caller's changes nothing, whatever is in it,
// and two streams can use it one after the other.
func TestNewStreamIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, spec := drawWorld(t)
		words := make([]uint64, spec.Bytes()/8+1)
		rubbish := rapid.Uint64().Draw(t, "rubbish")
		for i := range words {
			words[i] = rubbish
		}
		memory := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))[:spec.Bytes()]
		for range 2 {
			want := newStream(t, spec)
			got, err := NewStreamIn(memory, spec)
			if err != nil {
				t.Fatal(err)
			}
			if got.Bytes() != spec.Bytes() {
				t.Fatalf("the stream holds %d bytes of %d", got.Bytes(), spec.Bytes())
			}
			for range 2*spec.StepsPerEpoch + 1 {
				a, errA := want.Next(t.Context(), w.load)
				b, errB := got.Next(t.Context(), w.load)
				if errA != nil || errB != nil || !slices.Equal(a.Labels, b.Labels) || !bytes.Equal(a.Pixels, b.Pixels) {
					t.Fatalf("step %d: %v and %v, %v and %v", a.Step, a.Labels, b.Labels, errA, errB)
				}
			}
		}
	})
}

func TestNewStreamIn_BadMemory(t *testing.T) {
	spec := StreamSpec{Pieces: Pieces(10, 4, 1, 0), RecordBytes: 3, Batch: 2, StepsPerEpoch: 5}
	words := make([]uint64, 100)
	memory := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), 8*len(words))
	for name, bad := range map[string][]byte{
		"none":        nil,
		"too little":  memory[:spec.Bytes()-1],
		"not aligned": memory[1:],
	} {
		if _, err := NewStreamIn(bad, spec); err == nil {
			t.Errorf("%s: no objection", name)
		}
	}
	spec.Batch = 0
	if _, err := NewStreamIn(memory, spec); err == nil {
		t.Error("a bad spec: no objection")
	}
}

// TestStream_Parts: the parts of every batch, one after the other, are the batch.
func TestStream_Parts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records, perShard := rapid.IntRange(1, 60).Draw(t, "records"), rapid.IntRange(1, 20).Draw(t, "records a shard")
		spec := StreamSpec{
			Pieces: Pieces(records, perShard, 1, 0), RecordBytes: 1, Seed: 3, Batch: rapid.IntRange(1, 20).Draw(t, "batch"),
		}
		spec.StepsPerEpoch = (records + spec.Batch - 1) / spec.Batch
		load := func(_ context.Context, p Piece, dst *Window) error {
			for i := p.From; i < p.To; i++ {
				dst.Pixels, dst.Labels = append(dst.Pixels, byte(i)), append(dst.Labels, uint16(p.Shard))
			}
			return nil
		}
		open := func(spec StreamSpec) *Stream {
			s, err := NewStream(spec)
			if err != nil {
				t.Fatal(err)
			}
			if s.Bytes() != spec.Bytes() {
				t.Fatalf("takes %d bytes, predicted %d", s.Bytes(), spec.Bytes())
			}
			return s
		}
		whole := open(spec)
		spec.Parts = rapid.IntRange(1, 7).Draw(t, "parts")
		parts := make([]*Stream, spec.Parts)
		for i := range parts {
			spec.Part = i
			parts[i] = open(spec)
		}
		for range 2 * spec.StepsPerEpoch {
			want, err := whole.Next(context.Background(), load)
			if err != nil {
				t.Fatal(err)
			}
			pixels, labels := []byte(nil), []uint16(nil)
			for i, s := range parts {
				got, err := s.Next(context.Background(), load)
				if err != nil {
					t.Fatal(err)
				}
				if got.First != len(labels) || got.Step != want.Step || got.Epoch != want.Epoch {
					t.Fatalf("part %d of step %d starts with record %d", i, want.Step, got.First)
				}
				pixels, labels = append(pixels, got.Pixels...), append(labels, got.Labels...)
			}
			if !slices.Equal(pixels, want.Pixels) || !slices.Equal(labels, want.Labels) {
				t.Fatalf("step %d: parts have %v of %v, the batch %v of %v", want.Step, pixels, labels, want.Pixels, want.Labels)
			}
		}
	})
	for _, part := range []int{-1, 3} {
		spec := StreamSpec{RecordBytes: 1, Batch: 1, StepsPerEpoch: 1, Parts: 3, Part: part}
		if err := spec.Validate(); err == nil {
			t.Errorf("part %d of 3 is accepted", part)
		}
	}
}
