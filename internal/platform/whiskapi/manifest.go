// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"disdel/internal/job"
	"disdel/internal/platform/pool"
)

// manifestMax bounds a runtimes manifest.
const manifestMax = job.MB

// stemCellMax bounds the stem cells of one kind and memory size.
const stemCellMax = 1000

// ParseManifest reads a runtimes manifest of OpenWhisk's: the managed kinds, and
// the stem cells to keep of each. Its lists of blackboxes and its reactive stem
// cells are ignored.
func ParseManifest(r io.Reader) ([]Kind, []pool.StemCell, error) {
	text, err := io.ReadAll(io.LimitReader(r, int64(manifestMax)+1))
	if err != nil {
		return nil, nil, fmt.Errorf("runtimes manifest: %w", err)
	}
	if job.Bytes(len(text)) > manifestMax {
		return nil, nil, fmt.Errorf("runtimes manifest: it is larger than %v", manifestMax)
	}
	var manifest struct {
		Runtimes map[string][]struct {
			Kind        string
			Default     bool
			Deprecated  bool
			RequireMain bool
			Image       struct{ Registry, Prefix, Name, Tag string }
			StemCells   []struct {
				InitialCount *int
				Count        *int
				Memory       string
			}
		}
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return nil, nil, fmt.Errorf("runtimes manifest: %w", err)
	}
	if manifest.Runtimes == nil {
		return nil, nil, errors.New(`runtimes manifest: it has no "runtimes"`)
	}
	var kinds []Kind
	var cells []pool.StemCell
	for _, family := range slices.Sorted(maps.Keys(manifest.Runtimes)) {
		for _, item := range manifest.Runtimes[family] {
			image := item.Image.Name
			for _, part := range []string{item.Image.Prefix, item.Image.Registry} {
				if part != "" {
					image = part + "/" + image
				}
			}
			if item.Image.Tag != "" {
				image += ":" + item.Image.Tag
			}
			kinds = append(kinds, Kind{
				Name: item.Kind, Image: image, Default: item.Default, Deprecated: item.Deprecated, RequireMain: item.RequireMain,
			})
			for _, cell := range item.StemCells {
				memory, err := job.ParseBytes(cell.Memory)
				if err != nil {
					return nil, nil, fmt.Errorf("runtimes manifest: kind %q: stem cells: %w", item.Kind, err)
				}
				count := 0
				if cell.Count != nil {
					count = *cell.Count
				}
				if cell.InitialCount != nil {
					count = *cell.InitialCount
				}
				if count < 0 || count > stemCellMax {
					return nil, nil, fmt.Errorf("runtimes manifest: kind %q: %d stem cells: want 0 to %d", item.Kind, count, stemCellMax)
				}
				if count > 0 {
					cells = append(cells, pool.StemCell{Image: image, Memory: memory, Count: count})
				}
			}
		}
	}
	return kinds, cells, nil
}
