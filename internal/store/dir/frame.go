// SPDX-License-Identifier: Apache-2.0

package dir

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"disdel/internal/store"
)

const (
	frameBytes   = 64 << 10 // data of a full frame
	headerBytes  = 16
	frameHead    = 8
	trailerBytes = 16
	fileVersion  = 1
	// bufferBytes holds a whole file of one frame, so that small values take
	// one system call.
	bufferBytes = headerBytes + frameHead + frameBytes + trailerBytes
)

// kind keeps a status from being read as an object.
type kind byte

const (
	kindObject kind = 'o'
	kindStatus kind = 's'
	kindEntry  kind = 'l'
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var buffers = sync.Pool{New: func() any { return new([bufferBytes]byte) }}

// makeHeader returns a file's header and the running checksum after it.
func makeHeader(k kind, name string) (header [headerBytes]byte, crc uint32) {
	copy(header[:], "disdel")
	header[6], header[7] = byte(k), fileVersion
	binary.LittleEndian.PutUint32(header[8:], crc32.Checksum([]byte(name), castagnoli))
	crc = crc32.Checksum(header[:12], castagnoli)
	binary.LittleEndian.PutUint32(header[12:], crc)
	return header, crc
}

// frameWriter frames what is written to it. Nothing reaches out before a frame
// is full or finish is called.
type frameWriter struct {
	ctx   context.Context
	out   io.Writer
	buf   *[bufferBytes]byte
	start int // where the current frame's head is: behind the header, then 0
	used  int // data bytes in the current frame
	crc   uint32
	total uint64
	err   error // sticky
}

// newFrameWriter borrows a buffer until release.
func newFrameWriter(ctx context.Context, out io.Writer, k kind, name string) *frameWriter {
	w := &frameWriter{ctx: ctx, out: out, buf: buffers.Get().(*[bufferBytes]byte), start: headerBytes}
	header, crc := makeHeader(k, name)
	copy(w.buf[:], header[:])
	w.crc = crc
	return w
}

func (w *frameWriter) Write(p []byte) (int, error) {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	written := 0
	for len(p) > 0 && w.err == nil {
		if w.used == frameBytes {
			w.emit()
			continue
		}
		data := w.start + frameHead
		n := copy(w.buf[data+w.used:data+frameBytes], p)
		w.used, written, p = w.used+n, written+n, p[n:]
	}
	return written, w.err
}

// seal fills in the current frame's head and returns where the frame ends.
func (w *frameWriter) seal() int {
	if w.used == 0 {
		return w.start
	}
	end := w.start + frameHead + w.used
	binary.LittleEndian.PutUint32(w.buf[w.start:], uint32(w.used))
	w.crc = crc32.Update(w.crc, castagnoli, w.buf[w.start:w.start+4])
	w.crc = crc32.Update(w.crc, castagnoli, w.buf[w.start+frameHead:end])
	binary.LittleEndian.PutUint32(w.buf[w.start+4:], w.crc)
	w.total += uint64(w.used)
	return end
}

func (w *frameWriter) emit() {
	end := w.seal()
	w.start, w.used = 0, 0
	if w.err = w.ctx.Err(); w.err == nil {
		_, w.err = w.out.Write(w.buf[:end])
	}
}

// finish writes what is left and the trailer.
func (w *frameWriter) finish() error {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err != nil {
		return w.err
	}
	end := w.seal()
	trailer := w.buf[end : end+trailerBytes]
	binary.LittleEndian.PutUint32(trailer, 0)
	binary.LittleEndian.PutUint64(trailer[8:], w.total)
	w.crc = crc32.Update(w.crc, castagnoli, trailer[:4])
	w.crc = crc32.Update(w.crc, castagnoli, trailer[8:])
	binary.LittleEndian.PutUint32(trailer[4:], w.crc)
	_, w.err = w.out.Write(w.buf[:end+trailerBytes])
	return w.err
}

// release gives the buffer back; later writes fail.
func (w *frameWriter) release() {
	buffers.Put(w.buf)
	w.buf = nil
	w.err = fmt.Errorf("write after the call that owns the writer: %w", store.ErrClosed)
}

// frameReader verifies what frameWriter wrote.
type frameReader struct {
	in       io.Reader
	kind     kind
	name     string
	buf      *[bufferBytes]byte
	from, to int // unparsed bytes in buf
	offset   int64
	begun    bool
	short    bool // a frame that was not full has been seen: the trailer is next
	crc      uint32
	total    uint64
	err      error // sticky
}

// newFrameReader borrows a buffer until release.
func newFrameReader(in io.Reader, k kind, name string) *frameReader {
	return &frameReader{in: in, kind: k, name: name, buf: buffers.Get().(*[bufferBytes]byte)}
}

func (r *frameReader) release() {
	if r.buf != nil {
		buffers.Put(r.buf)
		r.buf = nil
	}
}

// next returns the data of the next frame, verified and valid until the next
// call, or io.EOF behind a correct trailer.
func (r *frameReader) next() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	var data []byte
	data, r.err = r.parse()
	return data, r.err
}

func (r *frameReader) parse() ([]byte, error) {
	if !r.begun {
		if err := r.need(headerBytes); err != nil {
			return nil, err
		}
		want, crc := makeHeader(r.kind, r.name)
		if [headerBytes]byte(r.take(headerBytes)) != want {
			return nil, r.corrupt("wrong header, or the file of another key")
		}
		r.begun, r.crc = true, crc
	}
	if err := r.need(frameHead); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(r.buf[r.from:])
	switch {
	case length == 0:
		return nil, r.parseTrailer()
	case length > frameBytes:
		return nil, r.corrupt("frame longer than a frame may be")
	case r.short:
		return nil, r.corrupt("frame behind the last one")
	}
	if err := r.need(frameHead + int(length)); err != nil {
		return nil, err
	}
	frame := r.buf[r.from : r.from+frameHead+int(length)]
	crc := crc32.Update(r.crc, castagnoli, frame[:4])
	crc = crc32.Update(crc, castagnoli, frame[frameHead:])
	if crc != binary.LittleEndian.Uint32(frame[4:]) {
		return nil, r.corrupt("frame checksum does not match")
	}
	r.take(len(frame))
	r.crc, r.short = crc, length < frameBytes
	r.total += uint64(length)
	return frame[frameHead:], nil
}

func (r *frameReader) parseTrailer() error {
	if err := r.need(trailerBytes); err != nil {
		return err
	}
	trailer := r.buf[r.from : r.from+trailerBytes]
	crc := crc32.Update(r.crc, castagnoli, trailer[:4])
	crc = crc32.Update(crc, castagnoli, trailer[8:])
	if crc != binary.LittleEndian.Uint32(trailer[4:]) {
		return r.corrupt("trailer checksum does not match")
	}
	if binary.LittleEndian.Uint64(trailer[8:]) != r.total {
		return r.corrupt("length in the trailer does not match")
	}
	r.take(trailerBytes)
	err := r.need(1)
	switch {
	case err == nil:
		return r.corrupt("bytes behind the trailer")
	case errors.Is(err, store.ErrCorrupt): // The end of the file, where it belongs.
		return io.EOF
	default:
		return err
	}
}

// take returns and consumes n buffered bytes.
func (r *frameReader) take(n int) []byte {
	taken := r.buf[r.from : r.from+n]
	r.from += n
	r.offset += int64(n)
	return taken
}

// need reads until n unparsed bytes are buffered. The end of the file before
// that is corruption.
func (r *frameReader) need(n int) error {
	if r.to-r.from >= n {
		return nil
	}
	r.to = copy(r.buf[:], r.buf[r.from:r.to])
	r.from = 0
	for empty := 0; r.to < n; {
		got, err := r.in.Read(r.buf[r.to:])
		r.to += got
		switch {
		case r.to >= n:
		case errors.Is(err, io.EOF):
			return r.corrupt("file ends too early")
		case err != nil:
			return err
		case got == 0:
			if empty++; empty == 100 {
				return io.ErrNoProgress
			}
		}
	}
	return nil
}

func (r *frameReader) corrupt(reason string) error {
	return fmt.Errorf("byte %d: %s: %w", r.offset, reason, store.ErrCorrupt)
}

// readAll returns all data, which may be at most limit bytes.
func (r *frameReader) readAll(limit int) ([]byte, error) {
	all := []byte{}
	for {
		data, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		case len(all)+len(data) > limit:
			return nil, r.corrupt("longer than its kind may be")
		}
		all = append(all, data...)
	}
}
