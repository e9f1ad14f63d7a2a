// SPDX-License-Identifier: Apache-2.0

package data

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// named says that tests of the published files were asked for; then they must
// be in the folder that DISDEL_DATA names.
func named() bool { return slices.Contains(strings.Split(os.Getenv("DISDEL_E2E"), ","), "data") }

// The golden values are computed from the published files by a program that
// shares nothing with this one.
func TestPublished_FilesAreTheDescribedOnes(t *testing.T) {
	text, err := os.ReadFile("testdata/published_golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]struct {
		Train  described `json:"train"`
		Test   described `json:"test"`
		Digest string    `json:"digest"`
	}
	if err := json.Unmarshal(text, &golden); err != nil {
		t.Fatal(err)
	}
	for _, p := range publications() {
		name := p.info.Name
		want, ok := golden[name]
		if !ok || want.Digest != p.digest || want.Train.Records != p.info.Train || want.Test.Records != p.info.Test {
			t.Errorf("%s: the catalogue has %d and %d records of digest %q; golden are %d and %d of %q",
				name, p.info.Train, p.info.Test, p.digest, want.Train.Records, want.Test.Records, want.Digest)
		}
		if !named() {
			continue
		}
		t.Run(name, func(t *testing.T) {
			folder := os.Getenv("DISDEL_DATA")
			if folder == "" {
				t.Fatal("DISDEL_E2E names data, so DISDEL_DATA must name the folder of the published files")
			}
			var told notices
			set, err := Open(t.Context(), name, Options{DataDir: folder, Notice: told.add})
			if err != nil {
				t.Fatal(err)
			}
			told.want(t)
			for part, c := range map[Part]struct {
				split Split
				want  described
			}{Train: {set.Train, want.Train}, Test: {set.Test, want.Test}} {
				if got := describe(set.Info.Classes, set.Info.RecordBytes(), c.split); !got.equal(c.want) {
					t.Errorf("%s: %+v, want %+v", part, got, c.want)
				}
			}
			if want.Digest != "" && set.Digest() != want.Digest {
				t.Errorf("digest %s, want %s", set.Digest(), want.Digest)
			}
			t.Logf("%d and %d records, digest %s", set.Train.Len(), set.Test.Len(), set.Digest())
		})
	}
}
