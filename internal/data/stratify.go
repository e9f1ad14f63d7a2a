// SPDX-License-Identifier: Apache-2.0

package data

import (
	"slices"

	"disdel/internal/data/shard"
)

// stratify chooses which records to hold out for testing where a source has no
// test split of its own: about percent % of each class, rounded to the nearest
// record (halves up), but never the last record of a class, so a class with one
// record goes to training. The choice within a class depends on the seed, the
// class and the order of its records, not on other classes. It returns the
// indices of both splits, each in ascending order.
func stratify(labels []uint16, classes, percent int, seed uint64) (train, test []int) {
	byClass := make([][]int, classes)
	for i, label := range labels {
		byClass[label] = append(byClass[label], i)
	}
	for class, records := range byClass {
		n := len(records)
		if n == 0 {
			continue
		}
		held := min((n*percent+50)/100, n-1)
		order := make([]uint32, n)
		r := shard.NewRand(seed, uint64(class))
		r.Perm(order)
		for i, at := range order {
			if i < held {
				test = append(test, records[at])
			} else {
				train = append(train, records[at])
			}
		}
	}
	slices.Sort(train)
	slices.Sort(test)
	return train, test
}

// holdOutPercent is the share of a set without a test split that becomes one.
const holdOutPercent = 20

// holdOut divides records into a training and a test split by stratify. It
// takes over the records' memory: the training split is what is left of it.
func holdOut(all Split, recordBytes, classes int) (train, test Split) {
	keep, held := stratify(all.Labels, classes, holdOutPercent, holdOutSeed)
	test = pick(all, recordBytes, held)
	for to, from := range keep {
		copy(all.Pixels[to*recordBytes:(to+1)*recordBytes], all.Pixels[from*recordBytes:(from+1)*recordBytes])
		all.Labels[to] = all.Labels[from]
	}
	return Split{Pixels: all.Pixels[:len(keep)*recordBytes], Labels: all.Labels[:len(keep)]}, test
}

// pick copies the records with these indices.
func pick(from Split, recordBytes int, indices []int) Split {
	to := Split{
		Pixels: make([]byte, 0, len(indices)*recordBytes),
		Labels: make([]uint16, 0, len(indices)),
	}
	for _, i := range indices {
		to.Pixels = append(to.Pixels, from.Pixels[i*recordBytes:(i+1)*recordBytes]...)
		to.Labels = append(to.Labels, from.Labels[i])
	}
	return to
}
