// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"net/http"
	"strings"
	"time"

	"disdel/internal/platform"
)

// logLinesMax bounds the lines that Logs returns.
const logLinesMax = 1000

// Logs implements platform.LogReader. What deployments keep differs: a
// standalone server keeps stdout alone, and chooses lines by whole seconds, so
// that they may be those of another call of the same container.
func (c *Client) Logs(ctx context.Context, id platform.Activation) ([]string, error) {
	if _, err := c.call(id); err != nil {
		return nil, err
	}
	r := request{method: http.MethodGet, path: c.path("activations", string(id), "logs"), most: recordMax}
	var told struct{ Logs []string }
	if err := c.ask(ctx, r, &told); err != nil {
		return nil, err
	}
	lines := told.Logs
	if len(lines) > logLinesMax {
		lines = lines[len(lines)-logLinesMax:]
	}
	all := make([]string, 0, len(lines))
	for _, line := range lines {
		all = append(all, c.redact(printed(line)))
	}
	return all, nil
}

// printed is what a container printed, of a line of a record: that has the time
// before it, and in most deployments the stream.
func printed(line string) string {
	stamp, rest, _ := strings.Cut(line, " ")
	if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil {
		return line
	}
	// The time is padded to 30 characters.
	for pad := 30 - len(stamp); pad > 0 && strings.HasPrefix(rest, " "); pad-- {
		rest = rest[1:]
	}
	for _, stream := range []string{"stdout: ", "stderr: "} {
		if text, ok := strings.CutPrefix(rest, stream); ok {
			return text
		}
	}
	return rest
}
