// SPDX-License-Identifier: Apache-2.0

package data

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"disdel/internal/data/shard"
)

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range Names() {
		if seen[name] || name != strings.ToLower(name) || name == "" {
			t.Errorf("name %q", name)
		}
		seen[name] = true
		d, err := Find(name)
		if err != nil {
			t.Fatal(err)
		}
		if d.Info().Name != name {
			t.Errorf("%s calls itself %s", name, d.Info().Name)
		}
	}
	if !seen["digits"] {
		t.Error("no digits")
	}
}

func TestFind_UnknownNamesTheOthers(t *testing.T) {
	_, err := Find("Digits")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), `"Digits"; there is: digits`) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(t.Context(), "", Options{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

func TestOpen_StopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, name := range Names() {
		if _, err := Open(ctx, name, Options{}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// described is what testdata/digits_golden.py says of a list of records.
type described struct {
	Records   int   `json:"records"`
	Labels    []int `json:"labels"`
	PixelSums []int `json:"pixel_sums"`
}

func describe(classes, recordBytes int, splits ...Split) described {
	d := described{Labels: make([]int, classes), PixelSums: make([]int, classes)}
	for _, s := range splits {
		d.Records += s.Len()
		for i, label := range s.Labels {
			d.Labels[label]++
			for _, p := range s.Pixels[i*recordBytes : (i+1)*recordBytes] {
				d.PixelSums[label] += int(p)
			}
		}
	}
	return d
}

func (d described) equal(o described) bool {
	return d.Records == o.Records && slices.Equal(d.Labels, o.Labels) && slices.Equal(d.PixelSums, o.PixelSums)
}

// The golden values are computed from the file by a program that shares nothing
// with this one.
func TestDigits_IsTheDescribedOne(t *testing.T) {
	text, err := os.ReadFile("testdata/digits_golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		All    described `json:"all"`
		Train  described `json:"train"`
		Test   described `json:"test"`
		Order  []uint32  `json:"order"`
		Digest string    `json:"digest"`
	}
	if err := json.Unmarshal(text, &want); err != nil {
		t.Fatal(err)
	}
	set, err := Open(t.Context(), "digits", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		got, want described
	}{
		{"all", describe(10, 64, set.Train, set.Test), want.All},
		{"train", describe(10, 64, set.Train), want.Train},
		{"test", describe(10, 64, set.Test), want.Test},
	} {
		if !c.got.equal(c.want) {
			t.Errorf("%s: %+v, want %+v", c.name, c.got, c.want)
		}
	}
	if got := globalOrder(set.Train.Len())[:len(want.Order)]; !slices.Equal(got, want.Order) {
		t.Errorf("global order starts %v, want %v", got, want.Order)
	}
	if got := set.Digest(); got != want.Digest {
		t.Errorf("digest %s, want %s", got, want.Digest)
	}
}

func TestDigits_FileMustBeTheOriginal(t *testing.T) {
	for at := range digitsFile {
		if at%1000 != 0 {
			continue
		}
		bad := bytes.Clone(digitsFile)
		bad[at] ^= 1
		if _, err := readDigits(bad); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), digitsSHA256) {
			t.Errorf("bit flipped in byte %d: %v", at, err)
		}
	}
	about, err := os.ReadFile("digits/ATTRIBUTION.txt")
	if err != nil {
		t.Fatal(err)
	}
	info := digits{}.Info()
	for _, part := range []string{digitsSHA256, fmt.Sprintf("%d bytes", len(digitsFile)), "CC BY 4.0", "E. Alpaydin and C. Kaynak", info.Source} {
		if !bytes.Contains(about, []byte(part)) {
			t.Errorf("the attribution lacks %q", part)
		}
	}
}

func digitLine(fields ...string) string {
	row := slices.Repeat([]string{"16"}, 64)
	return strings.Join(append(row, fields...), ",") + "\n"
}

func TestParseDigits_IsStrict(t *testing.T) {
	good := digitLine("9")
	all, err := parseDigits([]byte(good + good))
	if err != nil || all.Len() != 2 || len(all.Pixels) != 128 || all.Labels[1] != 9 || all.Pixels[127] != 16 {
		t.Fatalf("%+v, %v", all, err)
	}
	for name, text := range map[string]string{
		"no end of line":   strings.TrimSuffix(good, "\n"),
		"carriage return":  strings.TrimSuffix(good, "\n") + "\r\n",
		"empty line":       good + "\n",
		"few fields":       digitLine(),
		"many fields":      digitLine("9", "1"),
		"trailing comma":   digitLine("9", ""),
		"empty field":      digitLine(""),
		"label":            digitLine("10"),
		"pixel":            strings.Replace(good, "16", "17", 1),
		"large pixel":      strings.Replace(good, "16", "116", 1),
		"sign":             strings.Replace(good, "16", "-1", 1),
		"plus":             strings.Replace(good, "16", "+1", 1),
		"space":            strings.Replace(good, "16", " 1", 1),
		"leading zero":     strings.Replace(good, "16", "01", 1),
		"two zeros":        strings.Replace(good, "16", "00", 1),
		"fraction":         strings.Replace(good, "16", "1.", 1),
		"huge number":      strings.Replace(good, "16", strings.Repeat("9", 40), 1),
		"too many records": strings.Repeat(good, digitsRecords+1),
	} {
		if _, err := parseDigits([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := parseDigits([]byte(good + digitLine("x"))); err == nil || !strings.Contains(err.Error(), `line 2, field 65 of digits is "x", want 0 to 9`) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseDigits(f *testing.F) {
	f.Add([]byte(digitLine("9")))
	f.Add([]byte(strings.Replace(digitLine("0"), "16", "0", 7)))
	f.Add([]byte(digitLine()))
	f.Fuzz(func(t *testing.T, in []byte) {
		all, err := parseDigits(in)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		var b bytes.Buffer
		for i, label := range all.Labels {
			for _, p := range all.Pixels[64*i : 64*i+64] {
				fmt.Fprintf(&b, "%d,", p)
			}
			fmt.Fprintf(&b, "%d\n", label)
		}
		if !bytes.Equal(b.Bytes(), in) {
			t.Fatalf("read as %q", b.Bytes())
		}
	})
}

func TestStratify_KeepsEachClassesShare(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		classes := rapid.IntRange(1, 8).Draw(t, "classes")
		labels := rapid.SliceOfN(rapid.Uint16Range(0, uint16(classes-1)), 0, 200).Draw(t, "labels")
		percent := rapid.IntRange(0, 100).Draw(t, "percent")
		seed := rapid.Uint64().Draw(t, "seed")
		train, test := stratify(labels, classes, percent, seed)

		all := append(slices.Clone(train), test...)
		slices.Sort(all)
		for i, at := range all {
			if i != at {
				t.Fatalf("records %v and %v are not a partition of %d", train, test, len(labels))
			}
		}
		if len(all) != len(labels) || !slices.IsSorted(train) || !slices.IsSorted(test) {
			t.Fatalf("records %v and %v of %d", train, test, len(labels))
		}
		total, held := make([]int, classes), make([]int, classes)
		for _, label := range labels {
			total[label]++
		}
		for _, at := range test {
			held[labels[at]]++
		}
		for c, n := range total {
			if n > 0 && held[c] == n {
				t.Fatalf("class %d has nothing to train on", c)
			}
			if share := float64(n*percent) / 100; math.Abs(float64(held[c])-share) > 1 {
				t.Fatalf("class %d: %d of %d held out for a share of %g", c, held[c], n, share)
			}
		}
		again, _ := stratify(labels, classes, percent, seed)
		if !slices.Equal(again, train) {
			t.Fatal("a second call differs")
		}
	})
}

func TestStratify_ClassesDoNotDependOnEachOther(t *testing.T) {
	chosen := func(labels ...uint16) (of1 []int) {
		_, test := stratify(labels, 2, 50, 3)
		at := -1
		for i, label := range labels {
			if label == 1 {
				if at++; slices.Contains(test, i) {
					of1 = append(of1, at)
				}
			}
		}
		return of1
	}
	if a, b := chosen(1, 1, 1, 1, 1, 1), chosen(0, 1, 0, 1, 1, 1, 0, 1, 1); !slices.Equal(a, b) {
		t.Errorf("%v and %v", a, b)
	}
}

// makeSet makes a valid set whose pixels tell which record they belong to.
func makeSet(train, test, h, w, c, classes int) *Set {
	fill := func(n, first int) Split {
		s := Split{Pixels: make([]byte, 0, n*h*w*c)}
		for i := range n {
			for b := range h * w * c {
				s.Pixels = append(s.Pixels, byte((first+i)>>(8*(b%2))))
			}
			s.Labels = append(s.Labels, uint16((first+i)%classes))
		}
		return s
	}
	return &Set{
		Info:  Info{Name: "made", H: h, W: w, C: c, Classes: classes, ClassNames: make([]string, classes), Train: train, Test: test, Scale: 1.0 / 255},
		Train: fill(train, 0),
		Test:  fill(test, train),
	}
}

func TestCut_GivesEveryRecordOnceInTheGlobalOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := makeSet(rapid.IntRange(1, 300).Draw(t, "train"), rapid.IntRange(0, 60).Draw(t, "test"),
			rapid.IntRange(1, 3).Draw(t, "h"), 2, rapid.IntRange(1, 3).Draw(t, "c"), rapid.IntRange(1, 5).Draw(t, "classes"))
		size := rapid.IntRange(1, 400).Draw(t, "shardRecords")
		whole := map[Part]*Split{Train: {}, Test: {}}
		next := map[Part]int{}
		var first *byte
		err := Cut(set, size, func(s Shard) error {
			if s.Index != next[s.Part] || s.Part == Train && next[Test] > 0 {
				t.Fatalf("shard %s/%d out of turn", s.Part, s.Index)
			}
			next[s.Part]++
			if s.Part == Train && first != nil && first != &s.Pixels[0] {
				t.Fatal("Cut holds more than one shard")
			}
			if s.Part == Train {
				first = &s.Pixels[0]
			}
			// What arrives must be what a worker reads.
			var b bytes.Buffer
			if err := s.Encode(&b); err != nil {
				t.Fatal(err)
			}
			if int64(b.Len()) != s.Header.Bytes() {
				t.Fatalf("%d bytes, announced %d", b.Len(), s.Header.Bytes())
			}
			rd, err := shard.NewReader(&b)
			if err != nil {
				t.Fatal(err)
			}
			w := shard.NewWindow(rd.Header.Records, set.Info.RecordBytes())
			if err := rd.ReadRange(0, rd.Header.Records, w); err != nil {
				t.Fatal(err)
			}
			to := whole[s.Part]
			to.Pixels, to.Labels = append(to.Pixels, w.Pixels...), append(to.Labels, w.Labels...)
			if left := map[Part]int{Train: set.Info.Train, Test: set.Info.Test}[s.Part] - to.Len(); left > 0 && len(w.Labels) != size {
				t.Fatalf("shard %s/%d has %d records and is not the last", s.Part, s.Index, len(w.Labels))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if next[Train] != shard.Count(set.Info.Train, size) || next[Test] != shard.Count(set.Info.Test, size) {
			t.Fatalf("%v shards", next)
		}
		if !bytes.Equal(whole[Test].Pixels, set.Test.Pixels) || !slices.Equal(whole[Test].Labels, set.Test.Labels) {
			t.Fatal("the test split has changed")
		}
		var indices []int
		for _, r := range globalOrder(set.Train.Len()) {
			indices = append(indices, int(r))
		}
		want := pick(set.Train, set.Info.RecordBytes(), indices)
		if !bytes.Equal(whole[Train].Pixels, want.Pixels) || !slices.Equal(whole[Train].Labels, want.Labels) {
			t.Fatal("training records are not in the global order")
		}
		slices.Sort(indices)
		for i, at := range indices {
			if i != at {
				t.Fatal("the global order is no permutation")
			}
		}
	})
}

func TestCut_StopsAtTheFirstError(t *testing.T) {
	full := errors.New("store is full")
	set := makeSet(10, 4, 1, 2, 1, 3)
	for fail := range 5 {
		calls := 0
		err := Cut(set, 3, func(Shard) error {
			if calls++; calls > fail {
				return full
			}
			return nil
		})
		if !errors.Is(err, full) || calls != fail+1 {
			t.Errorf("failing call %d: %v after %d calls", fail, err, calls)
		}
	}
	never := func(Shard) error { t.Error("a shard of a refused cut"); return nil }
	if err := Cut(set, 0, never); err == nil {
		t.Error("shards of no records")
	}
	set.Info.Test++
	if err := Cut(set, 3, never); !errors.Is(err, ErrInvalid) {
		t.Errorf("a set that is invalid: %v", err)
	}
	// A shard that the format cannot hold is refused before anything is put.
	big := makeSet(6, 0, 1, 1, 1, 3)
	big.Info.H, big.Info.W = 1<<12, 1<<12
	big.Train.Pixels = make([]byte, 6<<24)
	if err := Cut(big, 4, never); !errors.Is(err, shard.ErrFormat) {
		t.Errorf("four records of 16 MiB in one shard: %v", err)
	}
}

func TestShardRecords(t *testing.T) {
	for _, c := range []struct{ h, w, c, want int }{{8, 8, 1, 15887}, {28, 28, 1, 1334}, {32, 32, 3, 341}, {4096, 4096, 3, 1}} {
		i := Info{H: c.h, W: c.w, C: c.c}
		if got := ShardRecords(i); got != c.want {
			t.Errorf("%dx%dx%d: %d, want %d", c.h, c.w, c.c, got, c.want)
		}
	}
}

func TestDigest_CoversAllThatTrainingSees(t *testing.T) {
	base := makeSet(3000, 2500, 1, 2, 2, 4) // more labels than its buffer
	want := base.Digest()
	if len(want) != 64 || makeSet(3000, 2500, 1, 2, 2, 4).Digest() != want {
		t.Fatalf("digest %q is not stable", want)
	}
	same := *base
	same.Info.Name, same.Info.Title, same.Info.ClassNames = "other", "other", nil
	if same.Digest() != want {
		t.Error("the name changes the digest")
	}
	for name, change := range map[string]func(*Set){
		"shape":      func(s *Set) { s.Info.H, s.Info.W = s.Info.W, s.Info.H },
		"channels":   func(s *Set) { s.Info.W, s.Info.C = 4, 1 },
		"classes":    func(s *Set) { s.Info.Classes++ },
		"scale":      func(s *Set) { s.Info.Scale = 1.0 / 256 },
		"pixel":      func(s *Set) { s.Train.Pixels[77] ^= 1 },
		"label":      func(s *Set) { s.Train.Labels[2999]++ },
		"test pixel": func(s *Set) { s.Test.Pixels[77] ^= 1 },
		"test label": func(s *Set) { s.Test.Labels[2499]++ },
		"order":      func(s *Set) { s.Train.Labels[0], s.Train.Labels[1] = s.Train.Labels[1], s.Train.Labels[0] },
		"split": func(s *Set) {
			s.Test.Labels = append([]uint16{s.Train.Labels[2999]}, s.Test.Labels...)
			s.Test.Pixels = append(bytes.Clone(s.Train.Pixels[4*2999:]), s.Test.Pixels...)
			s.Train = Split{s.Train.Pixels[:4*2999], s.Train.Labels[:2999]}
		},
	} {
		s := makeSet(3000, 2500, 1, 2, 2, 4)
		change(s)
		if s.Digest() == want {
			t.Errorf("%s does not change the digest", name)
		}
	}
}

// The digest is that of what Cut puts out, whatever the size of the shards.
func TestDigest_IsThatOfTheShards(t *testing.T) {
	set := makeSet(100, 30, 2, 2, 1, 7)
	for _, size := range []int{1, 7, 1000} {
		parts := map[Part]*Split{Train: {}, Test: {}}
		if err := Cut(set, size, func(s Shard) error {
			p := parts[s.Part]
			p.Pixels, p.Labels = append(p.Pixels, s.Pixels...), append(p.Labels, s.Labels...)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		// Undo the permutation: a set whose global order is what was cut.
		undone := Split{Pixels: make([]byte, len(set.Train.Pixels)), Labels: make([]uint16, 100)}
		for i, r := range globalOrder(100) {
			copy(undone.Pixels[4*r:], parts[Train].Pixels[4*i:4*i+4])
			undone.Labels[r] = parts[Train].Labels[i]
		}
		if got := (&Set{Info: set.Info, Train: undone, Test: *parts[Test]}).Digest(); got != set.Digest() {
			t.Errorf("shards of %d: digest %s, want %s", size, got, set.Digest())
		}
	}
}

func TestSet_Validate(t *testing.T) {
	if err := makeSet(5, 2, 1, 2, 3, 4).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Set){
		"shape":         func(s *Set) { s.Info.H = 0 },
		"huge shape":    func(s *Set) { s.Info.H, s.Info.W = math.MaxInt, math.MaxInt },
		"classes":       func(s *Set) { s.Info.Classes = 0 },
		"class names":   func(s *Set) { s.Info.ClassNames = s.Info.ClassNames[1:] },
		"no scale":      func(s *Set) { s.Info.Scale = 0 },
		"scale":         func(s *Set) { s.Info.Scale = 255 },
		"scale no num":  func(s *Set) { s.Info.Scale = float32(math.NaN()) },
		"train count":   func(s *Set) { s.Info.Train++ },
		"test count":    func(s *Set) { s.Info.Test-- },
		"pixels":        func(s *Set) { s.Train.Pixels = s.Train.Pixels[1:] },
		"record":        func(s *Set) { s.Test.Pixels = s.Test.Pixels[6:] },
		"label":         func(s *Set) { s.Test.Labels[1] = 4 },
		"nothing there": func(s *Set) { s.Info.Train, s.Train = 0, Split{} },
	} {
		s := makeSet(5, 2, 1, 2, 3, 4)
		change(s)
		if err := s.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A replica that reads its pieces of the cut digits sees just its own records,
// and all replicas together see all of them.
func TestDigits_EveryRecordReachesOneReplica(t *testing.T) {
	set, err := Open(t.Context(), "digits", Options{})
	if err != nil {
		t.Fatal(err)
	}
	const size, replicas, batch = 200, 3, 32
	var encoded [][]byte
	if err := Cut(set, size, func(s Shard) error {
		if s.Part != Train {
			return nil
		}
		var b bytes.Buffer
		encoded = append(encoded, nil)
		err := s.Encode(&b)
		encoded[s.Index] = b.Bytes()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	load := func(_ context.Context, p shard.Piece, dst *shard.Window) error {
		rd, err := shard.NewReader(io.Reader(bytes.NewReader(encoded[p.Shard])))
		if err != nil {
			return err
		}
		return rd.ReadRange(p.From, p.To, dst)
	}
	var seen []string
	for r := range replicas {
		pieces := shard.Pieces(set.Train.Len(), size, replicas, r)
		steps := (shard.Records(pieces) + batch - 1) / batch
		s, err := shard.NewStream(shard.StreamSpec{Pieces: pieces, RecordBytes: 64, Seed: 1, Replica: r, Batch: batch, StepsPerEpoch: steps})
		if err != nil {
			t.Fatal(err)
		}
		for range steps {
			b, err := s.Next(t.Context(), load)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, records(Split{b.Pixels, b.Labels}, 64)...)
		}
	}
	want := records(set.Train, 64)
	slices.Sort(seen)
	slices.Sort(want)
	if !slices.Equal(seen, want) {
		t.Errorf("%d records seen, %d there", len(seen), len(want))
	}
}

func records(s Split, size int) []string {
	var out []string
	for i, label := range s.Labels {
		out = append(out, string(binary.LittleEndian.AppendUint16(bytes.Clone(s.Pixels[i*size:(i+1)*size]), label)))
	}
	return out
}
