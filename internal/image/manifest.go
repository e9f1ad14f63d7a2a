// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"strings"

	"disdel/internal/job"
)

// StemCells are containers that a deployment keeps started.
type StemCells struct {
	Count  int
	Memory job.Bytes
}

// RuntimeManifest is what an operator of OpenWhisk adds to the runtimes manifest
// so that the worker is a managed kind, "disdel:1", with stem cells.
func RuntimeManifest(reference string, cells []StemCells) ([]byte, error) {
	tag, err := parse(reference)
	if err != nil {
		return nil, err
	}
	type stemCell struct {
		Count  int    `json:"initialCount"`
		Memory string `json:"memory"`
	}
	stemCells := []stemCell{}
	for _, c := range cells {
		if c.Count < 1 || c.Memory < job.MB || c.Memory%job.MB != 0 {
			return nil, fmt.Errorf("stem cells: %d of %v: want at least one, of whole MB", c.Count, c.Memory)
		}
		stemCells = append(stemCells, stemCell{c.Count, fmt.Sprintf("%d MB", c.Memory/job.MB)})
	}
	// The manifest has the name in three parts and the tag.
	repository := reference
	if colon := strings.LastIndexByte(repository, ':'); colon > strings.LastIndexByte(repository, '/') {
		repository = repository[:colon]
	}
	image := map[string]string{"tag": tag.TagStr()}
	slash := strings.LastIndexByte(repository, '/')
	image["name"] = repository[slash+1:]
	if slash >= 0 {
		image["prefix"] = repository[:slash]
	}
	text, err := json.MarshalIndent(map[string]any{
		"runtimes": map[string]any{"disdel": []any{map[string]any{
			"kind": "disdel:1", "default": true, "deprecated": false, "requireMain": false, "image": image, "stemCells": stemCells,
		}}},
		"blackboxes": []any{},
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("runtime manifest: %w", err)
	}
	return append(text, '\n'), nil
}
