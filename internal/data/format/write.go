// SPDX-License-Identifier: Apache-2.0

package format

import (
	"archive/zip"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// NPZArray is an array to be written.
type NPZArray struct {
	Name string
	// Dims are its dimensions. Bytes are its values of uint8, else Labels those
	// of int64, the last index the fastest.
	Dims   []int
	Bytes  []byte
	Labels []uint16
}

// WriteNPZ writes an archive of NumPy arrays, compressed, as
// np.savez_compressed does: the same bytes for the same arrays.
func WriteNPZ(w io.Writer, arrays ...NPZArray) error {
	z := zip.NewWriter(w)
	for _, a := range arrays {
		entry, err := z.CreateHeader(&zip.FileHeader{Name: a.Name + npyExtension, Method: zip.Deflate})
		if err == nil {
			err = a.write(entry)
		}
		if err != nil {
			return fmt.Errorf("array %s: %w", a.Name, err)
		}
	}
	return z.Close()
}

func (a NPZArray) write(w io.Writer) error {
	kind := "|u1"
	if a.Bytes == nil {
		kind = "<i8"
	}
	dims := make([]string, len(a.Dims))
	for i, d := range a.Dims {
		dims[i] = strconv.Itoa(d)
	}
	shape := strings.Join(dims, ", ")
	if len(dims) == 1 {
		shape += ","
	}
	text := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", kind, shape)
	// The values start at a multiple of 64 bytes.
	text += strings.Repeat(" ", 63-(10+len(text))%64) + "\n"
	head := append([]byte(npyMagic), 1, 0)
	head = binary.LittleEndian.AppendUint16(head, uint16(len(text)))
	if _, err := w.Write(append(head, text...)); err != nil {
		return err
	}
	if a.Bytes != nil {
		_, err := w.Write(a.Bytes)
		return err
	}
	const most = 4096
	buffer := make([]byte, 0, 8*most)
	for rest := a.Labels; len(rest) > 0; {
		n := min(len(rest), most)
		buffer = buffer[:0]
		for _, label := range rest[:n] {
			buffer = binary.LittleEndian.AppendUint64(buffer, uint64(label))
		}
		if _, err := w.Write(buffer); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}
