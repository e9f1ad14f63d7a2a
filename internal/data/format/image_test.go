// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"testing"

	"disdel/internal/data/format/formattest"
)

func makePNG(m image.Image) []byte {
	var b bytes.Buffer
	must(png.Encode(&b, m))
	return b.Bytes()
}

func makeJPEG(m image.Image) []byte {
	var b bytes.Buffer
	must(jpeg.Encode(&b, m, &jpeg.Options{Quality: 100}))
	return b.Bytes()
}

// paint fills a 2 x 3 image of any kind from one list of colours.
func paint[T interface {
	image.Image
	Set(x, y int, c color.Color)
}](m T, colours ...color.Color) T {
	for i, c := range colours {
		m.Set(i%3, i/3, c)
	}
	return m
}

func TestImage_PixelsAreThoseStored(t *testing.T) {
	box := image.Rect(0, 0, 3, 2)
	var grey, transparent, opaque, grey16, colour16 []color.Color
	for i := range 6 {
		v := uint8(40 * i)
		grey = append(grey, color.Gray{v})
		grey16 = append(grey16, color.Gray16{uint16(v)<<8 | 0x7f})
		opaque = append(opaque, color.NRGBA{v, v + 1, v + 2, 255})
		transparent = append(transparent, color.NRGBA{v, v + 1, v + 2, uint8(i)})
		colour16 = append(colour16, color.NRGBA64{uint16(v)<<8 | 0xff, uint16(v+1) << 8, uint16(v+2) << 8, uint16(i) * 1000})
	}
	one := []byte{0, 40, 80, 120, 160, 200}
	three := []byte{0, 1, 2, 40, 41, 42, 80, 81, 82, 120, 121, 122, 160, 161, 162, 200, 201, 202}
	for _, c := range []struct {
		name string
		m    image.Image
		want []byte
	}{
		{"grey", paint(image.NewGray(box), grey...), one},
		{"grey of 16 bits", paint(image.NewGray16(box), grey16...), one},
		{"colour", paint(image.NewNRGBA(box), opaque...), three},
		{"transparent", paint(image.NewNRGBA(box), transparent...), three},
		{"transparent of 16 bits", paint(image.NewNRGBA64(box), colour16...), three},
		{"palette", paint(image.NewPaletted(box, opaque), opaque...), three},
		{"transparent palette", paint(image.NewPaletted(box, transparent), transparent...), three},
	} {
		shape, got, err := Image(makePNG(c.m))
		if err != nil || shape != (Shape{2, 3, len(c.want) / 6}) || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %v %v, %v; want %v", c.name, shape, got, err, c.want)
		}
	}
	for name, m := range map[string]image.Image{"grey": paint(image.NewGray(box), grey...), "colour": paint(image.NewNRGBA(box), opaque...)} {
		shape, got, err := Image(makeJPEG(m))
		if err != nil || shape.H != 2 || shape.W != 3 || (shape.C == 1) != (name == "grey") || len(got) != shape.Bytes() {
			t.Errorf("JPEG, %s: %v %v, %v", name, shape, got, err)
		}
	}
	flat := image.NewGray(image.Rect(0, 0, 16, 16))
	for i := range flat.Pix {
		flat.Pix[i] = 200
	}
	if _, got, err := Image(makeJPEG(flat)); err != nil || !bytes.Equal(got, flat.Pix) {
		t.Errorf("a JPEG of one grey: %v, %v", got, err)
	}
}

// Grey with transparency is a type of PNG that the encoder does not write.
func TestImage_GreyWithTransparencyIsGrey(t *testing.T) {
	file := rawPNG(2, 1, 8, 4, []byte{0, 10, 255, 20, 0})
	shape, got, err := Image(file)
	if err != nil || shape != (Shape{1, 2, 1}) || !bytes.Equal(got, []byte{10, 20}) {
		t.Errorf("%v %v, %v", shape, got, err)
	}
}

// rawPNG writes chunks by hand.
func rawPNG(w, h uint32, depth, kind byte, rows []byte) []byte {
	chunk := func(name string, data []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		b = append(append(b, name...), data...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	// The bytes of zlib: those of a compressed MAT element behind its tag.
	packed := formattest.MATCompressed(binary.LittleEndian, rows)[8:]
	b := append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(head, depth, kind, 0, 0, 0))...)
	return append(append(b, chunk("IDAT", packed)...), chunk("IEND", nil)...)
}

func parseImage(b []byte) error {
	_, _, err := Image(b)
	return err
}

func TestImage_IsStrict(t *testing.T) {
	good := makePNG(image.NewGray(image.Rect(0, 0, 5, 5)))
	photo := makeJPEG(image.NewGray(image.Rect(0, 0, 5, 5)))
	for _, valid := range [][]byte{good, photo} {
		for n := range valid {
			if err := parseImage(valid[:n]); err != nil && !errors.Is(err, ErrFormat) {
				t.Fatalf("cut to %d of %d bytes: %v", n, len(valid), err)
			}
		}
	}
	big := bytes.Clone(photo)
	at := bytes.Index(big, []byte{0xff, 0xc0}) + 5
	copy(big[at:], []byte{0x08, 0x00, 0x01, 0xff})
	for _, c := range []struct {
		name string
		in   []byte
		text string
	}{
		{"GIF", []byte("GIF89a......"), "neither PNG nor JPEG"},
		{"empty", nil, "neither PNG nor JPEG"},
		{"cut", good[:20], "unexpected EOF"},
		{"a bomb", rawPNG(60000, 60000, 1, 0, []byte{0}), "an image of 60000x60000, want 1 to"},
		{"a smaller bomb", rawPNG(2048, 2048, 16, 6, []byte{0}), "an image of 2048x2048 in a file of"},
		{"a bomb of JPEG", big, "an image of 2048x511 in a file of"},
		{"nothing", rawPNG(0, 5, 8, 0, nil), "png"},
	} {
		refuse(t, c.name, c.in, c.text, parseImage)
	}
}

func FuzzImage(f *testing.F) {
	box := image.Rect(0, 0, 5, 4)
	for _, m := range []image.Image{image.NewGray(box), image.NewNRGBA64(box), image.NewPaletted(box, color.Palette{color.Black, color.White})} {
		f.Add(makePNG(m))
	}
	f.Add(makeJPEG(image.NewGray(box)))
	f.Add(makeJPEG(image.NewNRGBA(box)))
	f.Fuzz(func(t *testing.T, in []byte) {
		shape, pixels, err := Image(in)
		onlyErrFormat(t, err)
		if err == nil && len(pixels) != shape.Bytes() {
			t.Fatalf("%d pixels of %v", len(pixels), shape)
		}
	})
}
