// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// Properties are what a file of wsk's properties says. Keys that disdel has no
// use for are left out, NAMESPACE too, as in wsk: a key has one namespace.
type Properties struct {
	Host, Key, APIVersion       string
	Certificate, CertificateKey string
}

// propertiesMax bounds a file of properties.
const propertiesMax = 64 << 10

// ParseProperties reads lines "KEY=VALUE" as wsk does: # starts a comment, and a
// line that has not exactly one = is left out. Values are never in errors.
func ParseProperties(r io.Reader) (p Properties, err error) {
	lines := bufio.NewScanner(io.LimitReader(r, propertiesMax))
	lines.Buffer(nil, propertiesMax)
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.Contains(value, "=") {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToUpper(strings.TrimSpace(name)) {
		case "APIHOST":
			p.Host = value
		case "AUTH":
			p.Key = value
		case "APIVERSION":
			p.APIVersion = value
		case "CERT":
			p.Certificate = value
		case "KEY":
			p.CertificateKey = value
		}
	}
	if err := lines.Err(); err != nil {
		return Properties{}, fmt.Errorf("wsk's properties: %w", err)
	}
	return p, nil
}
