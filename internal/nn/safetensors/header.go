// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"unicode/utf8"
)

// parser reads the header token by token: package json's own decoding would let
// keys that appear twice, and keys in another case, pass.
type parser struct{ *json.Decoder }

// parseHeader parses and validates the JSON header.
func parseHeader(text []byte) (h Header, err error) {
	if !utf8.Valid(text) {
		return h, errors.New("not UTF-8")
	}
	if text[0] != '{' {
		return h, errors.New("does not start with {")
	}
	p := parser{json.NewDecoder(bytes.NewReader(text))}
	p.UseNumber()
	type placed struct {
		Info
		begin, end int64
	}
	var tensors []placed
	err = p.object(func(key string) error {
		if key == metadataKey {
			h.Metadata = map[string]string{}
			return p.object(func(k string) error {
				v, err := p.text()
				h.Metadata[k] = v
				return err
			})
		}
		t, begin, end, err := p.tensor()
		t.Name = key
		tensors = append(tensors, placed{t, begin, end})
		return err
	})
	if err != nil {
		return h, err
	}
	if rest := bytes.Trim(text[p.InputOffset():], " "); len(rest) > 0 {
		return h, errors.New("more than spaces after the object")
	}
	// An empty tensor begins where it ends, and comes before what follows there.
	sort.SliceStable(tensors, func(i, j int) bool {
		if tensors[i].begin != tensors[j].begin {
			return tensors[i].begin < tensors[j].begin
		}
		return tensors[i].end < tensors[j].end
	})
	at := int64(0)
	for _, t := range tensors {
		switch {
		case t.begin != at:
			return h, fmt.Errorf("tensor %.80q: data begins at %d, the data before it ends at %d", t.Name, t.begin, at)
		case t.end-t.begin != 4*int64(t.Len):
			return h, fmt.Errorf("tensor %.80q: data from %d to %d for shape %v of %s", t.Name, t.begin, t.end, t.Shape, dtype)
		case t.end > MaxDataBytes:
			return h, fmt.Errorf("tensor %.80q: data ends at %d, after %d", t.Name, t.end, int64(MaxDataBytes))
		}
		at = t.end
		h.Tensors = append(h.Tensors, t.Info)
	}
	return h, nil
}

// tensor reads one tensor's description.
func (p parser) tensor() (t Info, begin, end int64, err error) {
	fields := 0
	err = p.object(func(key string) error {
		fields++
		switch key {
		case "dtype":
			got, err := p.text()
			if err == nil && got != dtype {
				err = fmt.Errorf("dtype %.20q: only %s is supported", got, dtype)
			}
			return err
		case "shape":
			list, err := p.numbers()
			if err != nil {
				return fmt.Errorf("shape: %w", err)
			}
			t.Shape = make([]int, len(list))
			for i, d := range list {
				if t.Shape[i] = int(d); int64(t.Shape[i]) != d {
					return fmt.Errorf("shape: dimension %d does not fit this platform", d)
				}
			}
			t.Len, err = product(t.Shape)
			return err
		case "data_offsets":
			list, err := p.numbers()
			if err == nil && len(list) != 2 {
				err = fmt.Errorf("%d numbers, want 2", len(list))
			}
			if err != nil {
				return fmt.Errorf("data_offsets: %w", err)
			}
			begin, end = list[0], list[1]
			return nil
		}
		return errors.New("unknown field")
	})
	if err == nil && fields != 3 {
		err = errors.New("dtype, shape or data_offsets is missing")
	}
	return t, begin, end, err
}

// object reads an object and calls member after each key, which must read the
// value. A key that appears twice is an error.
func (p parser) object(member func(key string) error) error {
	if err := p.delimiter('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for p.More() {
		key, err := p.text()
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("%.80q appears twice", key)
		}
		seen[key] = true
		if err := member(key); err != nil {
			return fmt.Errorf("%.80q: %w", key, err)
		}
	}
	return p.delimiter('}')
}

// numbers reads a list of at most MaxDimensions numbers from 0 to 2^63-1,
// written as plain digits.
func (p parser) numbers() ([]int64, error) {
	if err := p.delimiter('['); err != nil {
		return nil, err
	}
	list := []int64{}
	for p.More() {
		token, err := p.token()
		if err != nil {
			return nil, err
		}
		number, _ := token.(json.Number)
		v, err := strconv.ParseUint(string(number), 10, 63)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not a number from 0 to 2^63-1", fmt.Sprint(token))
		}
		if len(list) == MaxDimensions {
			return nil, fmt.Errorf("more than %d numbers", MaxDimensions)
		}
		list = append(list, int64(v))
	}
	return list, p.delimiter(']')
}

func (p parser) text() (string, error) {
	token, err := p.token()
	if err != nil {
		return "", err
	}
	s, ok := token.(string)
	if !ok {
		return "", fmt.Errorf("%.40q in place of a string", fmt.Sprint(token))
	}
	return s, nil
}

func (p parser) delimiter(want json.Delim) error {
	token, err := p.token()
	if err == nil && token != want {
		err = fmt.Errorf("%.40q in place of %q", fmt.Sprint(token), want.String())
	}
	return err
}

// token is Token, for a header that ends too early as well.
func (p parser) token() (json.Token, error) {
	token, err := p.Token()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the JSON text ends early")
	}
	return token, err
}
