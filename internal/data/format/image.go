// SPDX-License-Identifier: Apache-2.0

package format

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
)

// maxImagePixels bounds one image: far more than a model of this program takes
// in, and little enough to decode in a moment.
const maxImagePixels = 1 << 22

// How many pixels a byte of the file can stand for at most. PNG packs eight into
// a byte before it compresses, to 1/1032 at best; JPEG needs a bit for each
// block of 64.
const (
	pngPixelsPerByte  = 8 * 1032
	jpegPixelsPerByte = 512
)

// Image reads a PNG or JPEG file. One channel comes of grey images, three of all
// others, those with a palette and those in CMYK too. Transparency is dropped:
// the colours are those that are stored below it. Of 16 bits the upper 8 stay.
func Image(file []byte) (Shape, []byte, error) {
	var config image.Config
	var err error
	perByte, grey := pngPixelsPerByte, false
	decode := png.Decode
	switch {
	case bytes.HasPrefix(file, []byte("\x89PNG\r\n\x1a\n")):
		config, err = png.DecodeConfig(bytes.NewReader(file))
		// The type of colour in the header, which comes first: 0 is grey, 4 is
		// grey with transparency.
		grey = err == nil && (file[25] == 0 || file[25] == 4)
	case bytes.HasPrefix(file, []byte("\xff\xd8")):
		config, err = jpeg.DecodeConfig(bytes.NewReader(file))
		grey = err == nil && config.ColorModel == color.GrayModel
		perByte, decode = jpegPixelsPerByte, jpeg.Decode
	default:
		return Shape{}, nil, badf("byte 0: it starts with % x: neither PNG nor JPEG", file[:min(8, len(file))])
	}
	if err != nil {
		return Shape{}, nil, badf("%w", err)
	}
	s := Shape{H: config.Height, W: config.Width, C: 3}
	if grey {
		s.C = 1
	}
	pixels, ok := product([]int64{int64(s.H), int64(s.W)}, maxImagePixels)
	if !ok || pixels == 0 {
		return s, nil, badf("an image of %dx%d, want 1 to %d pixels", s.H, s.W, maxImagePixels)
	}
	if pixels > int64(perByte)*int64(len(file)) {
		return s, nil, badf("an image of %dx%d in a file of %d bytes", s.H, s.W, len(file))
	}
	decoded, err := decode(bytes.NewReader(file))
	if err != nil {
		return s, nil, badf("%w", err)
	}
	if b := decoded.Bounds(); b.Dx() != s.W || b.Dy() != s.H {
		return s, nil, badf("an image of %dx%d where the header says %dx%d", b.Dy(), b.Dx(), s.H, s.W)
	}
	return s, flatten(decoded, s), nil
}

// flatten takes the pixels of an image as they are stored, without alpha.
func flatten(m image.Image, s Shape) []byte {
	out := make([]byte, 0, s.Bytes())
	b := m.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			red, green, blue := stored(m, x, y)
			if s.C == 1 {
				out = append(out, red)
			} else {
				out = append(out, red, green, blue)
			}
		}
	}
	return out
}

// stored is a pixel's colour, undimmed by its transparency.
func stored(m image.Image, x, y int) (red, green, blue byte) {
	switch m := m.(type) {
	case *image.Gray:
		v := m.GrayAt(x, y).Y
		return v, v, v
	case *image.Gray16:
		v := byte(m.Gray16At(x, y).Y >> 8)
		return v, v, v
	case *image.NRGBA:
		c := m.NRGBAAt(x, y)
		return c.R, c.G, c.B
	case *image.NRGBA64:
		c := m.NRGBA64At(x, y)
		return byte(c.R >> 8), byte(c.G >> 8), byte(c.B >> 8)
	case *image.Paletted:
		if c, ok := m.At(x, y).(color.NRGBA); ok {
			return c.R, c.G, c.B
		}
	case *image.YCbCr:
		c := m.YCbCrAt(x, y)
		return color.YCbCrToRGB(c.Y, c.Cb, c.Cr)
	}
	// What is left is opaque.
	r, g, b, _ := m.At(x, y).RGBA()
	return byte(r >> 8), byte(g >> 8), byte(b >> 8)
}
