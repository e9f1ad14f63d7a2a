// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"disdel/internal/data/format/formattest"
)

func readCSV(text string, shape *Shape) (Table, error) {
	return CSV(strings.NewReader(text), shape)
}

func TestCSV_LabelsAndShapes(t *testing.T) {
	wide := Shape{1, 4, 1}
	for _, c := range []struct {
		name, text string
		option     *Shape
		shape      Shape
		column     int
		guessed    bool
		labels     []string
	}{
		{"first column, no header", "7,1,2,3,4\n5,1,2,3,4\n7,1,2,3,4", nil, Shape{2, 2, 1}, 1, true, []string{"7", "5", "7"}},
		{"header", "label,a,b,c,d\n7,1,2,3,4\n", nil, Shape{2, 2, 1}, 1, false, []string{"7"}},
		{"last column", "a,b,c,d,Label\n1,2,3,4,7\n", nil, Shape{2, 2, 1}, 5, false, []string{"7"}},
		{"header of numbers", "0,1,2,3,label\n1,2,3,4,7\n", nil, Shape{2, 2, 1}, 5, false, []string{"7"}},
		{"header without label", "class,a,b,c,d\n7,1,2,3,4\n", nil, Shape{2, 2, 1}, 1, true, []string{"7"}},
		{"text", "cat,1,2,3,4\ndog,1,2,3,4\n", nil, Shape{2, 2, 1}, 1, true, []string{"cat", "dog"}},
		{"quotes, spaces, CRLF, mark of UTF-8", "\xef\xbb\xbf\"label\",\"a\", b,c,d\r\n\" cat\" ,\"1\", 2 ,3,4\r\n\r\n", nil, Shape{2, 2, 1}, 1, false, []string{" cat"}},
		{"shape in the file", "# from a camera\n# shape: 2x1x2\n7,1,2,3,4\n# the end\n", nil, Shape{2, 1, 2}, 1, true, []string{"7"}},
		{"shape as an option", "# shape: 2x2\n7,1,2,3,4\n", &wide, wide, 1, true, []string{"7"}},
	} {
		for _, in := range []string{c.text, string(formattest.Gzip([]byte(c.text)))} {
			got, err := readCSV(in, c.option)
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
				continue
			}
			var labels []string
			for _, l := range got.Labels {
				labels = append(labels, got.Names[l])
			}
			if got.Shape != c.shape || got.Column != c.column || got.Guessed != c.guessed || !slices.Equal(labels, c.labels) {
				t.Errorf("%s: %+v, labels %q", c.name, got, labels)
			}
			if !bytes.Equal(got.Pixels, bytes.Repeat([]byte{1, 2, 3, 4}, len(labels))) {
				t.Errorf("%s: pixels %v", c.name, got.Pixels)
			}
		}
	}
}

func TestCSV_IsStrict(t *testing.T) {
	parse := func(b []byte) error { _, err := CSV(bytes.NewReader(b), nil); return err }
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "there are no records"},
		{"comments alone", "# hello\n\n", "there are no records"},
		{"header alone", "label,a,b,c,d\n", "there are no records"},
		{"one column", "label\n1\n", "line 1: one column"},
		{"no square", "1,2,3,4\n", "line 1: 3 pixels are no square; give the shape as --shape HxWxC or in a first line: # shape: HxWxC"},
		{"wrong shape", "# shape: 2x2\n1,2,3\n", "line 2: 2 columns beside the label, want 4 for the shape 2x2x1"},
		{"bad shape", "# shape: 2 by 2\n1,2,3,4,5\n", `line 1: shape "2 by 2": want HxW or HxWxC`},
		{"huge shape", "# shape: 16777216x16777216\n1,2,3,4,5\n", "line 1: shape"},
		{"two labels", "label,a,b,c,LABEL\n", "line 1: columns 1 and 5 are both called label"},
		{"few fields", "1,1,2,3,4\n1,1,2,3\n", "line 2: 4 fields, want 5"},
		{"many fields", "1,1,2,3,4\n1,1,2,3,4,5\n", "line 2: more than 5 fields"},
		{"256", "1,1,2,3,256\n", `line 1: field 5 is "256", want a whole number of 0 to 255`},
		{"fraction", "1,1,2,3,0.5\n", `line 1: field 5 is "0.5"`},
		{"fractions alone", "1,1,2,3,4\n1.0,0.1,0.2,0.3,0.4\n", `line 2: field 2 is "0.1"`},
		{"minus", "1,1,2,3,-1\n", `line 1: field 5 is "-1"`},
		{"empty pixel", "1,1,,3,4\n", `line 1: field 3 is ""`},
		{"long number", "1,1,2,3,0000000000000000000000004\n", `line 1: field 5 is`},
		{"empty label", ",1,2,3,4\n", "line 1: a label of 0 bytes"},
		{"long label", strings.Repeat("x", 201) + ",1,2,3,4\n", "line 1: a label of 201 bytes"},
		{"comma in quotes", `"a,b",1,2,3,4`, "line 1: 5 pixels are no square"},
		{"quote within", "a\"b,1,2,3,4\n", "line 1: the label"},
		{"gzip", string(formattest.Gzip([]byte("1,1,2,3,4\n"))[:20]), "line 1: the file ends early"},
	} {
		refuse(t, c.name, []byte(c.text), c.want, parse)
	}
	long := strings.Repeat("1,", csvMaxLine)
	if _, err := readCSV(long, nil); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "line 1: longer than") {
		t.Errorf("a long line: %v", err)
	}
	var many strings.Builder
	for i := range MaxClasses + 1 {
		fmt.Fprintf(&many, "c%d,1\n", i)
	}
	if _, err := readCSV(many.String(), nil); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "more than 65536 different labels") {
		t.Errorf("many labels: %v", err)
	}
	broken := errors.New("broken disk")
	if _, err := CSV(failing{strings.NewReader("1,1,2,3,4\n"), broken}, nil); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("broken disk: %v", err)
	}
}

// A line that is longer than the reader's buffer is read whole.
func TestCSV_LongLines(t *testing.T) {
	var b strings.Builder
	const side = 300
	for range 3 {
		b.WriteString("x")
		for i := range side * side {
			fmt.Fprintf(&b, ",%d", i%256)
		}
		b.WriteByte('\n')
	}
	got, err := readCSV(b.String(), nil)
	if err != nil || got.Shape != (Shape{side, side, 1}) || len(got.Labels) != 3 || got.Pixels[2*side*side+255] != 255 {
		t.Errorf("%v %d, %v", got.Shape, len(got.Labels), err)
	}
}

func TestParseShape(t *testing.T) {
	for text, want := range map[string]Shape{"28x28": {28, 28, 1}, "20x16x1": {20, 16, 1}, "32x32x3": {32, 32, 3}} {
		if got, err := ParseShape(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "28", "28x", "x28", "28x28x3x1", "0x1", "-1x1", "+1x1", "01x1", " 1x1", "1x1x0", "99999999999999999999x1", "65536x65536x65536"} {
		if got, err := ParseShape(text); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("label,a,b,c,d\n7,1,2,3,4\n"))
	f.Add([]byte("# shape: 1x2x2\n\"cat\",1,2,3,4\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := CSV(bytes.NewReader(in), nil)
		onlyErrFormat(t, err)
		if err != nil {
			return
		}
		if len(got.Pixels) != got.Shape.Bytes()*len(got.Labels) || len(got.Labels) == 0 {
			t.Fatalf("%d pixels of %v in %d records", len(got.Pixels), got.Shape, len(got.Labels))
		}
		for _, l := range got.Labels {
			if int(l) >= len(got.Names) {
				t.Fatalf("label %d of %q", l, got.Names)
			}
		}
	})
}

// FuzzParseShape: what is accepted is printed as it was given, but for the channel
// that may be left out.
func FuzzParseShape(f *testing.F) {
	for _, text := range []string{"28x28", "32x32x3", "0x1", "1x", "9999999x9999999", "١x١"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseShape(text)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if got := s.String(); got != text && got != text+"x1" || s.Bytes() < 1 || s.Bytes() > csvMaxLine {
			t.Fatalf("%q is %v", text, s)
		}
	})
}
