// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of memory or storage in bytes.
type Bytes int64

// Binary multiples. MB is what OpenWhisk and this project print for 2^20 bytes.
const (
	KB Bytes = 1 << 10
	MB Bytes = 1 << 20
	GB Bytes = 1 << 30
)

var byteUnits = []struct {
	suffix string
	factor Bytes
}{
	{"KIB", KB},
	{"MIB", MB},
	{"GIB", GB},
	{"KB", KB},
	{"MB", MB},
	{"GB", GB},
	{"K", KB},
	{"M", MB},
	{"G", GB},
	{"B", 1},
}

// ParseBytes reads an amount of memory as users write it. A bare number counts
// megabytes of 2^20 bytes, as OpenWhisk does; a unit (B, KB, MB, GB, also KiB,
// K and so on, in any case) overrides that. Fractions are allowed ("1.5GB").
func ParseBytes(s string) (Bytes, error) {
	text := strings.ToUpper(strings.TrimSpace(s))
	factor := MB
	for _, unit := range byteUnits {
		if rest, ok := strings.CutSuffix(text, unit.suffix); ok {
			text, factor = strings.TrimSpace(rest), unit.factor
			break
		}
	}
	if strings.Trim(text, "0123456789.") != "" || text == "" {
		return 0, fmt.Errorf("memory %q: want a number of MB (256) or a number with a unit (256MB, 1GB)", s)
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fmt.Errorf("memory %q: want a number of MB (256) or a number with a unit (256MB, 1GB)", s)
	}
	total := value * float64(factor)
	if total > float64(math.MaxInt64/2) {
		return 0, fmt.Errorf("memory %q: too large", s)
	}
	return Bytes(math.Round(total)), nil
}

// String formats b with the largest binary unit that keeps it readable:
// "512 B", "23.4 KB", "256 MB".
func (b Bytes) String() string {
	if -KB < b && b < KB {
		return strconv.FormatInt(int64(b), 10) + " B"
	}
	for _, unit := range []struct {
		name string
		size Bytes
	}{{" KB", KB}, {" MB", MB}} {
		// What would be rounded up to 1024 is one of the next unit.
		if value := float64(b) / float64(unit.size); math.Abs(value) < 1023.95 {
			return oneDigit(value) + unit.name
		}
	}
	return oneDigit(float64(b)/float64(GB)) + " GB"
}

func oneDigit(value float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(value, 'f', 1, 64), ".0")
}

// CeilTo rounds b up to a multiple of step. A step of zero or less leaves b
// unchanged, and so does a multiple that is beyond the range of Bytes.
func (b Bytes) CeilTo(step Bytes) Bytes {
	if step <= 0 || b > math.MaxInt64-step {
		return b
	}
	return (b + step - 1) / step * step
}
