// SPDX-License-Identifier: Apache-2.0

package job

import "fmt"

// Dataset describes a data set as the plan and the workers need it. It is part
// of the numerics plan, so a change of any field is another job.
type Dataset struct {
	Name string `json:"name"`
	// Digest is the hexadecimal SHA-256 of the records that training sees.
	Digest string `json:"digest"`
	// Height, Width and Channels of one record, in pixels of one byte.
	Height   int `json:"height"`
	Width    int `json:"width"`
	Channels int `json:"channels"`
	Classes  int `json:"classes"`
	// ClassNames has one entry a class.
	ClassNames []string `json:"class_names,omitempty"`
	// Scale is what a pixel is multiplied with to lie in 0..1.
	Scale float32 `json:"scale"`
	// Train and Test are numbers of records.
	Train int `json:"train"`
	Test  int `json:"test"`
	// ShardRecords is the number of records in each shard but the last of a
	// part.
	ShardRecords int `json:"shard_records"`
}

// RecordBytes is the size of one record's pixels.
func (d Dataset) RecordBytes() Bytes {
	return Bytes(d.Height) * Bytes(d.Width) * Bytes(d.Channels)
}

// Part names a part of a data set.
type Part string

// The parts of a data set.
const (
	TrainPart Part = "train"
	TestPart  Part = "test"
)

// Records returns the number of records in the part.
func (d Dataset) Records(p Part) int {
	if p == TestPart {
		return d.Test
	}
	return d.Train
}

// Shards returns the number of shards that the part is cut into.
func (d Dataset) Shards(p Part) int {
	return (d.Records(p) + d.ShardRecords - 1) / d.ShardRecords
}

// ShardKey is the store key of a shard. It depends on the data alone, so that
// jobs share shards.
func (d Dataset) ShardKey(p Part, shard int) string {
	return fmt.Sprintf("data/%s/%d/%s/%06d", d.Digest, d.ShardRecords, p, shard)
}
