// SPDX-License-Identifier: Apache-2.0

package jsontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
)

type leaf struct {
	Kind string  `json:"kind"`
	Rate float64 `json:"rate,omitempty"`
}

type tree struct {
	Name   string          `json:"name"`
	Count  *int            `json:"count"`
	Seed   uint64          `json:"seed"`
	Leaves []leaf          `json:"leaves"`
	Raw    json.RawMessage `json:"raw"`
	hidden int
}

func TestDecode(t *testing.T) {
	var got tree
	text := "{\n \"name\": \"é\", \"count\": 3, \"seed\": 18446744073709551615,\n \"leaves\": [{\"kind\": \"a\"}, {\"kind\": \"b\", \"rate\": 0.5}],\n \"raw\": {\"x\": [1, {\"x\": 2}]}}\n"
	if err := Decode([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	three := 3
	want := tree{Name: "é", Count: &three, Seed: 1<<64 - 1, Leaves: []leaf{{"a", 0}, {"b", 0.5}}, Raw: json.RawMessage(`{"x": [1, {"x": 2}]}`)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if at := Elements([]byte(text), "leaves"); len(at) != 2 || Place([]byte(text), at[1]) != "line 3, column 28" {
		t.Errorf("the leaves start at %v", at)
	}
	for _, text := range []string{"", "[]", "{", `{"leaves": {}}`, `{"a": [1], "leaves": 3}`, `{"a": [`} {
		if at := Elements([]byte(text), "leaves"); at != nil {
			t.Errorf("%s: leaves at %v", text, at)
		}
	}
}

func TestDecode_SaysWhere(t *testing.T) {
	for text, want := range map[string]string{
		"":                                "line 1, column 1: the text ends early",
		" \n ":                            "line 2, column 2: the text ends early",
		"{":                               "line 1, column 2: the text ends early",
		"{\n\"name\": \"a\"":              "line 2, column 12: the text ends early",
		"{\n  \"nam\": 1}":                `line 2, column 3: unknown field "nam", known are: count, leaves, name, raw, seed`,
		`{"Name": "a"}`:                   `line 1, column 2: unknown field "Name", known are: count, leaves, name, raw, seed`,
		`{"hidden": 1}`:                   `line 1, column 2: unknown field "hidden", known are: count, leaves, name, raw, seed`,
		`{"name": "é", "name": "b"}`:      `line 1, column 15: field "name" appears twice`,
		`{"raw": {"x": 1, "x": 2}}`:       `line 1, column 18: field "x" appears twice`,
		"{\"leaves\": [{},\n{\"k\": 1}]}": `line 2, column 2: unknown field "k", known are: kind, rate`,
		"{\"count\":\n  \"three\"}":       "line 2, column 3: count is string, want a whole number",
		`{"count": 1.5}`:                  "line 1, column 11: count is number 1.5, want a whole number",
		`{"seed": -1}`:                    "line 1, column 10: seed is number -1, want a whole number of at least 0",
		`{"name": 5}`:                     "line 1, column 10: name is number, want a string",
		`{"leaves": {}}`:                  "line 1, column 12: leaves is object, want a list",
		`{"leaves": [5]}`:                 "line 1, column 13: leaves is number, want an object",
		`{"leaves": [{"rate": "x"}]}`:     "line 1, column 22: leaves.rate is string, want a number",
		"[]":                              "line 1, column 1: the value is array, want an object",
		"{} {}":                           "line 1, column 4: more text follows the value",
		"{}}":                             "line 1, column 3: more text follows the value",
		"{\"name\": \"a\",\n}":            "line 2, column 1: invalid character '}'",
		"{\"leaves\": [{},,]}":            "line 1, column 16: invalid character ','",
		"{\"name\" 1}":                    "line 1, column 9: invalid character '1'",
		"{\"seed\": 01}":                  "line 1, column 11: invalid character '1'",
		"{\"raw\": tru }":                 "line 1, column 9: invalid character ' '",
		"{'name': 1}":                     `line 1, column 2: invalid character '\''`,
	} {
		err := Decode([]byte(text), &tree{})
		if !errors.Is(err, ErrText) || !bytes.HasPrefix([]byte(err.Error()), []byte(want)) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// FuzzDecode: what is accepted is what encoding/json accepts strictly, and an
// error has a place.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{`{"name": "a", "leaves": [{"kind": "x", "rate": 1e3}], "raw": [1, null]}`, "{", `{"count": 1.5}`, "[]", `{"seed": -1}`, "{} x", "null"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want tree
		err := Decode(text, &got)
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		plain := strict.Decode(&want)
		if err != nil {
			if !errors.Is(err, ErrText) || !bytes.HasPrefix([]byte(err.Error()), []byte("line ")) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if plain != nil || !reflect.DeepEqual(got, want) || got.hidden != 0 {
			t.Fatalf("%q: accepted as %+v; encoding/json says %v", text, got, plain)
		}
		if at := Elements(text, "leaves"); len(at) != len(got.Leaves) || !slices.IsSorted(at) {
			t.Fatalf("%q: %d leaves start at %v", text, len(got.Leaves), at)
		}
	})
}
