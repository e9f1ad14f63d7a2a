// SPDX-License-Identifier: Apache-2.0

package data

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	_ "embed" // for digitsFile
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"sync"
)

// digitsFile is kept byte for byte as scikit-learn distributes it, so that
// anyone can compare it with the original; digits/ATTRIBUTION.txt says where it
// comes from.
//
//go:embed digits/digits.csv.gz
var digitsFile []byte

const (
	digitsSHA256  = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
	digitsSide    = 8
	digitsClasses = 10
	digitsMax     = 16 // the largest pixel
	digitsRecords = 1797
	// digitsTest is what holdOut gives.
	digitsTest = 359
	// digitsBytes bounds the uncompressed file: 64 pixels and a label of up to
	// three bytes each with their separator, in every record.
	digitsBytes = digitsRecords * (digitsSide*digitsSide + 1) * 3
)

// digits is the data set inside the binary: small enough to ship, so that
// everything can be tried without a download.
type digits struct{}

func (digits) Info() Info {
	return Info{
		Name:        "digits",
		Title:       "Optical Recognition of Handwritten Digits",
		Source:      "https://doi.org/10.24432/C50P49",
		Licence:     "CC-BY-4.0",
		Attribution: "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998, https://doi.org/10.24432/C50P49 (test part, as distributed by scikit-learn)",
		H:           digitsSide, W: digitsSide, C: 1,
		Classes:    digitsClasses,
		ClassNames: []string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"},
		Train:      digitsRecords - digitsTest,
		Test:       digitsTest,
		Scale:      1.0 / digitsMax,
	}
}

func (digits) Place(Options) Place { return Place{BuiltIn: true} }

func (d digits) Load(ctx context.Context, _ Options) (*Set, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	all, err := embeddedDigits()
	if err != nil {
		return nil, err
	}
	all = Split{Pixels: bytes.Clone(all.Pixels), Labels: slices.Clone(all.Labels)}
	train, test := holdOut(all, digitsSide*digitsSide, digitsClasses)
	return &Set{Info: d.Info(), Train: train, Test: test}, nil
}

// embeddedDigits are read once; nothing writes to them.
var embeddedDigits = sync.OnceValues(func() (Split, error) { return readDigits(digitsFile) })

// readDigits checks the compressed file against the known checksum and reads it.
func readDigits(file []byte) (Split, error) {
	if sum := sha256.Sum256(file); hex.EncodeToString(sum[:]) != digitsSHA256 {
		return Split{}, fmt.Errorf("%w: digits.csv.gz has sha256 %x, want %s", ErrInvalid, sum, digitsSHA256)
	}
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		return Split{}, fmt.Errorf("%w: digits.csv.gz: %w", ErrInvalid, err)
	}
	text, err := io.ReadAll(io.LimitReader(z, digitsBytes+1))
	if err != nil {
		return Split{}, fmt.Errorf("%w: digits.csv.gz: %w", ErrInvalid, err)
	}
	all, err := parseDigits(text)
	if err != nil {
		return Split{}, err
	}
	if all.Len() != digitsRecords {
		return Split{}, fmt.Errorf("%w: %d digits, want %d", ErrInvalid, all.Len(), digitsRecords)
	}
	return all, nil
}

// parseDigits reads lines of 64 pixels of 0 to 16 and a label of 0 to 9,
// separated by commas, with no space, sign or leading zero.
func parseDigits(text []byte) (Split, error) {
	var all Split
	const fields = digitsSide*digitsSide + 1
	for line := 1; len(text) > 0; line++ {
		if line > digitsRecords {
			return Split{}, fmt.Errorf("%w: more than %d lines of digits", ErrInvalid, digitsRecords)
		}
		row, rest, ended := bytes.Cut(text, []byte{'\n'})
		if !ended {
			return Split{}, fmt.Errorf("%w: line %d of digits does not end", ErrInvalid, line)
		}
		text = rest
		for field := 1; field <= fields; field++ {
			value, rest, more := bytes.Cut(row, []byte{','})
			if more != (field < fields) {
				return Split{}, fmt.Errorf("%w: line %d of digits does not have %d fields", ErrInvalid, line, fields)
			}
			row = rest
			most := digitsMax
			if field == fields {
				most = digitsClasses - 1
			}
			n, ok := smallNumber(value)
			if !ok || n > most {
				return Split{}, fmt.Errorf("%w: line %d, field %d of digits is %.10q, want 0 to %d", ErrInvalid, line, field, value, most)
			}
			if field == fields {
				all.Labels = append(all.Labels, uint16(n))
			} else {
				all.Pixels = append(all.Pixels, byte(n))
			}
		}
	}
	return all, nil
}

// smallNumber reads a number below 100 in its one decimal form.
func smallNumber(b []byte) (int, bool) {
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int(c-'0')
	}
	ok := len(b) == 1 || len(b) == 2 && b[0] != '0'
	return n, ok
}
