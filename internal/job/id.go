// SPDX-License-Identifier: Apache-2.0

package job

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// ID names one job. It is a valid store key segment and part of action names:
// lower-case letters, digits and dashes, at most [MaxIDLength] long.
type ID string

// MaxIDLength bounds an ID, so that every name made from it stays within the
// limits of stores and platforms.
const MaxIDLength = 64

// NewID makes an ID that sorts by time: "20261123-130259-4f2a91". The random
// part comes from rnd, of which three bytes are read.
func NewID(now time.Time, rnd io.Reader) (ID, error) {
	var raw [3]byte
	if _, err := io.ReadFull(rnd, raw[:]); err != nil {
		return "", fmt.Errorf("make job id: %w", err)
	}
	return ID(fmt.Sprintf("%s-%x", now.UTC().Format("20060102-150405"), raw)), nil
}

// Validate reports whether id can be used in keys and names.
func (id ID) Validate() error {
	if id == "" || len(id) > MaxIDLength {
		return fmt.Errorf("job id %q: want 1 to %d characters", string(id), MaxIDLength)
	}
	if id[0] == '-' || strings.ContainsFunc(string(id), notIDRune) {
		return fmt.Errorf("job id %q: want lower-case letters, digits and dashes", string(id))
	}
	return nil
}

func notIDRune(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
}
