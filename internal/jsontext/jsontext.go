// SPDX-License-Identifier: Apache-2.0

package jsontext

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// ErrText is wrapped by every error of Decode.
var ErrText = errors.New("bad JSON")

// textError is an ErrText that says only what is wrong: it stands behind the name
// of a file.
type textError struct{ error }

func (e textError) Unwrap() []error { return []error{e.error, ErrText} }

// Place says where in a text a byte is: "line 3, column 7", both counted from 1,
// columns in characters. A byte behind the text is at its end.
func Place(text []byte, offset int64) string {
	before := text[:min(max(offset, 0), int64(len(text)))]
	start := bytes.LastIndexByte(before, '\n') + 1
	return fmt.Sprintf("line %d, column %d", bytes.Count(before, []byte{'\n'})+1, utf8.RuneCount(before[start:])+1)
}

func errorAt(text []byte, offset int64, format string, args ...any) error {
	return textError{fmt.Errorf("%s: %w", Place(text, offset), fmt.Errorf(format, args...))}
}

// Decode reads the one JSON value in text into what v points to. Fields of
// structs that are unknown, in another case, or given twice are errors, and so is
// anything after the value. Errors start with the place and wrap ErrText; what v
// then points to is of no use.
func Decode(text []byte, v any) error {
	w := newWalker(text)
	if err := w.value(reflect.TypeOf(v)); err != nil {
		return err
	}
	end := w.decoder.InputOffset()
	if rest := space(text[end:]); len(rest) > 0 {
		return errorAt(text, int64(len(text)-len(rest)), "more text follows the value")
	}
	err := json.Unmarshal(text, v)
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &kind):
		what := "the value"
		if kind.Field != "" {
			what = kind.Field
		}
		return errorAt(text, startBefore(text, kind.Offset), "%s is %s, want %s", what, kind.Value, TypeName(kind.Type))
	default:
		return errorAt(text, 0, "%w", err)
	}
}

// TypeName is what people call values of a type.
func TypeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number of at least 0"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "a list"
	default:
		return "an object"
	}
}

// Fields returns where the fields of the outermost object start, up to an error.
func Fields(text []byte) map[string]int64 {
	starts := map[string]int64{}
	w := newWalker(text)
	if token, _, err := w.next(); err != nil || token != json.Delim('{') {
		return starts
	}
	for w.decoder.More() {
		token, start, err := w.next()
		if err != nil {
			break
		}
		if name, ok := token.(string); ok {
			starts[name] = start
		}
		if w.value(nil) != nil {
			break
		}
	}
	return starts
}

// Elements returns where the elements of the list under a key of the outermost
// object start, nil where there is no such list.
func Elements(text []byte, key string) []int64 {
	w := newWalker(text)
	if token, _, err := w.next(); err != nil || token != json.Delim('{') {
		return nil
	}
	for w.decoder.More() {
		name, _, err := w.next()
		if err != nil {
			return nil
		}
		if name != key {
			if w.value(nil) != nil {
				return nil
			}
			continue
		}
		token, _, err := w.next()
		if err != nil || token != json.Delim('[') {
			return nil
		}
		var starts []int64
		for w.decoder.More() {
			starts = append(starts, w.start())
			if w.value(nil) != nil {
				return nil
			}
		}
		return starts
	}
	return nil
}

// startBefore is where the last token starts that does so before end.
func startBefore(text []byte, end int64) (start int64) {
	w := newWalker(text)
	for {
		_, at, err := w.next()
		if err != nil || at >= end {
			return start
		}
		start = at
	}
}

func space(text []byte) []byte { return bytes.TrimLeft(text, " \t\r\n") }

// walker reads the tokens of a text and knows where they start.
type walker struct {
	text    []byte
	decoder *json.Decoder
}

func newWalker(text []byte) walker {
	w := walker{text: text, decoder: json.NewDecoder(bytes.NewReader(text))}
	w.decoder.UseNumber() // their range is not the walker's business
	return w
}

// start is where the next token starts.
func (w walker) start() int64 {
	at := int64(len(w.text)) - int64(len(space(w.text[w.decoder.InputOffset():])))
	if at < int64(len(w.text)) && (w.text[at] == ',' || w.text[at] == ':') {
		at = int64(len(w.text)) - int64(len(space(w.text[at+1:])))
	}
	return at
}

func (w walker) next() (token json.Token, start int64, err error) {
	start = w.start()
	token, err = w.decoder.Token()
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return token, start, nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, start, errorAt(w.text, int64(len(w.text)), "the text ends early")
	case errors.As(err, &syntax):
		return nil, start, errorAt(w.text, max(syntax.Offset-1, start), "%w", err)
	default:
		return nil, start, errorAt(w.text, start, "%w", err)
	}
}

// value reads a value that will be decoded into a t, nil for anything.
func (w walker) value(t reflect.Type) error {
	for t != nil && t.Kind() == reflect.Pointer {
		if decodesItself(t) {
			t = nil
			break
		}
		t = t.Elem()
	}
	if t != nil && decodesItself(reflect.PointerTo(t)) {
		t = nil
	}
	token, _, err := w.next()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		return w.object(t)
	case json.Delim('['):
		var element reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			element = t.Elem()
		}
		for w.decoder.More() {
			if err := w.value(element); err != nil {
				return err
			}
		}
		_, _, err = w.next()
	}
	return err
}

// object reads the rest of an object that will be decoded into a t.
func (w walker) object(t reflect.Type) error {
	var fields map[string]reflect.Type
	if t != nil && t.Kind() == reflect.Struct {
		fields = fieldsOf(t)
	}
	seen := map[string]bool{}
	for w.decoder.More() {
		token, start, err := w.next()
		if err != nil {
			return err
		}
		name, _ := token.(string) // the decoder allows no other key
		field, known := fields[name]
		switch {
		case fields != nil && !known:
			return errorAt(w.text, start, "unknown field %.40q, known are: %s", name, strings.Join(sortedNames(fields), ", "))
		case seen[name]:
			return errorAt(w.text, start, "field %.40q appears twice", name)
		}
		seen[name] = true
		if err := w.value(field); err != nil {
			return err
		}
	}
	_, _, err := w.next()
	return err
}

func decodesItself(t reflect.Type) bool {
	return t.Implements(reflect.TypeFor[json.Unmarshaler]())
}

// fieldsOf has the fields of a struct by their names in JSON. Embedded structs
// are not looked into.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.IsExported() && name != "-" {
			if name == "" {
				name = f.Name
			}
			fields[name] = f.Type
		}
	}
	return fields
}

func sortedNames(fields map[string]reflect.Type) []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
