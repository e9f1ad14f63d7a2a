// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"
)

// Write writes a file: the tensors in the given order, metadata keys sorted, so
// that equal arguments give equal bytes. On little-endian machines w is passed the
// tensors' own memory, a tensor at a time.
// Arguments that make no valid file are ErrFormat, before anything is written;
// an error of w is returned as it is, wrapped.
func Write(w io.Writer, meta map[string]string, tensors []Tensor) error {
	header, _, err := encodeHeader(meta, tensors)
	if err != nil {
		return err
	}
	for _, t := range tensors {
		if n, _ := product(t.Shape); n != len(t.Data) {
			return fmt.Errorf("%w: tensor %.80q: %d values for shape %v", ErrFormat, t.Name, len(t.Data), t.Shape)
		}
	}
	if _, err := w.Write(header); err != nil {
		return fmt.Errorf("safetensors: write header: %w", err)
	}
	for _, t := range tensors {
		if err := writeValues(w, t.Data); err != nil {
			return fmt.Errorf("safetensors: write tensor %.80q: %w", t.Name, err)
		}
	}
	return nil
}

// Size returns the bytes that Write writes for these arguments. It looks at
// names and shapes, not at Data.
func Size(meta map[string]string, tensors []Tensor) (int64, error) {
	header, data, err := encodeHeader(meta, tensors)
	return int64(len(header)) + data, err
}

// encodeHeader returns the length field and the JSON header, and the bytes of
// data that follow it.
func encodeHeader(meta map[string]string, tensors []Tensor) (header []byte, data int64, err error) {
	var b bytes.Buffer
	const each = 128 // more than most tensors' descriptions take
	b.Grow(each * len(tensors))
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(meta) > 0 {
		for k, v := range meta {
			if !utf8.ValidString(k) || !utf8.ValidString(v) {
				return nil, 0, fmt.Errorf("%w: metadata %.80q is not UTF-8", ErrFormat, k)
			}
		}
		b.WriteString(quote(metadataKey) + ":")
		b.Write(marshal(meta))
	}
	seen := make(map[string]bool, len(tensors))
	for _, t := range tensors {
		n, err := product(t.Shape)
		end := data + 4*int64(n)
		switch {
		case err != nil:
		case seen[t.Name]:
			err = fmt.Errorf("written twice")
		case t.Name == metadataKey || !utf8.ValidString(t.Name):
			err = fmt.Errorf("the name is reserved or not UTF-8")
		case end > MaxDataBytes:
			err = fmt.Errorf("more than %d bytes of data", int64(MaxDataBytes))
		case b.Len() > MaxHeaderBytes:
			err = fmt.Errorf("header of more than %d bytes", MaxHeaderBytes)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%w: tensor %.80q: %w", ErrFormat, t.Name, err)
		}
		seen[t.Name] = true
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		if b.Len() > 9 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, quote(t.Name), dtype, marshal(shape), data, end)
		data = end
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	header = b.Bytes()
	if n := len(header) - 8; n > MaxHeaderBytes {
		return nil, 0, fmt.Errorf("%w: header of %d bytes, more than %d", ErrFormat, n, MaxHeaderBytes)
	}
	binary.LittleEndian.PutUint64(header, uint64(len(header)-8))
	return header, data, nil
}

func quote(s string) string { return string(marshal(s)) }

// marshal encodes a string, a map of strings (keys sorted) or a list of numbers.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: strings and numbers can be encoded: " + err.Error())
	}
	return b
}
