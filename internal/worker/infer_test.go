// SPDX-License-Identifier: Apache-2.0

package worker

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"testing"

	"disdel/internal/job"
	"disdel/internal/nn"
	"disdel/internal/nn/kernel"
)

// TestEvaluate_DoesNotDependOnPieces: however the test part is divided, and
// whatever the batch, the counts are the same, and those of a plain loop.
func TestEvaluate_DoesNotDependOnPieces(t *testing.T) {
	d := tiny
	d.ShardRecords = 8 // 8 and 2 test records
	var want job.TaskResult
	for i, c := range []struct{ pieces, batch int }{{1, 10}, {2, 10}, {1, 3}, {2, 1}} {
		t.Run(fmt.Sprintf("%d pieces, batch %d", c.pieces, c.batch), func(t *testing.T) {
			x := newWorld(t, t.Context(), tinyPlan())
			x.job(never)
			shards, records, loss := d.Shards(job.TestPart), 0, 0.0
			for piece := range c.pieces {
				r := x.do(job.Task{
					Role: job.RoleInfer, Model: x.keys.Final(), Dataset: &d, Batch: c.batch, Piece: piece,
					ShardFrom: shards * piece / c.pieces, ShardTo: shards * (piece + 1) / c.pieces,
				})
				records += r.Records
				loss += r.LossSum
			}
			got := x.do(job.Task{Role: job.RoleEvaluate, Dataset: &d, Pieces: c.pieces})
			if records != d.Test || math.Abs(loss-got.LossSum) > 1e-9 {
				t.Errorf("pieces report %d records, loss %v; merged %v", records, loss, got.LossSum)
			}
			if i == 0 {
				want = naiveEvaluation(t, x)
				if math.Abs(got.LossSum-want.LossSum) > 1e-12*want.LossSum {
					t.Errorf("loss %v; want %v", got.LossSum, want.LossSum)
				}
				want.LossSum = got.LossSum
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("evaluation is %+v; want %+v", got, want)
			}
		})
	}
}

// TestInfer_Predictions: the predictions of all pieces, one after the other, are
// those of the records in their order, however the pieces are cut; they agree with
// the counts.
func TestInfer_Predictions(t *testing.T) {
	d := tiny
	d.ShardRecords = 4 // 4, 4 and 2 test records
	_, labels := records(job.TestPart)
	var want []byte
	for _, c := range []struct{ pieces, batch int }{{1, 10}, {2, 3}, {3, 1}} {
		x := newWorld(t, t.Context(), tinyPlan())
		x.job(never)
		x.cut(d, job.TestPart)
		shards := d.Shards(job.TestPart)
		var got []byte
		for piece := range c.pieces {
			x.do(job.Task{
				Role: job.RoleInfer, Model: x.keys.Final(), Dataset: &d, Batch: c.batch, Piece: piece, Predict: true,
				ShardFrom: shards * piece / c.pieces, ShardTo: shards * (piece + 1) / c.pieces,
			})
			got = append(got, x.object(x.keys.Predictions(piece))...)
		}
		counted := x.do(job.Task{Role: job.RoleEvaluate, Dataset: &d, Pieces: c.pieces})
		if want == nil {
			want = got
		}
		if len(got) != d.Test*job.PredictionBytes || !bytes.Equal(got, want) {
			t.Fatalf("%d pieces: %d bytes %x, want %x", c.pieces, len(got), got, want)
		}
		confusion := newConfusion(d.Classes)
		for i, label := range labels {
			p := job.DecodePrediction(got[i*job.PredictionBytes:])
			if p.Label != label || !(p.Probability >= 1/float32(d.Classes) && p.Probability <= 1) {
				t.Errorf("record %d of class %d: %+v", i, label, p)
			}
			confusion[p.Label][p.Class]++
		}
		if !reflect.DeepEqual(confusion, counted.Confusion) {
			t.Errorf("predicted %v, counted %v", confusion, counted.Confusion)
		}
	}
}

// naiveEvaluation predicts one record after the other.
func naiveEvaluation(t *testing.T, x *world) job.TaskResult {
	t.Helper()
	program, err := nn.Compile(tinyModel, nn.Config{Batch: 1})
	if err != nil {
		t.Fatal(err)
	}
	arena, err := nn.NewArena(int(program.Sizes().Total))
	if err != nil {
		t.Fatal(err)
	}
	defer arena.Close()
	instance, err := program.Bind(arena.Bytes(), kernel.Best())
	if err != nil {
		t.Fatal(err)
	}
	model, _ := x.tensorsOf(x.keys.Final())
	for _, p := range tinyModel.Params() {
		copy(instance.Weights()[p.Offset:], model[p.Name])
	}
	pixels, labels := records(job.TestPart)
	result := job.TaskResult{Records: len(labels), Confusion: newConfusion(tiny.Classes)}
	for i, label := range labels {
		logits, err := instance.Predict(pixels[16*i:16*(i+1)], 1, tiny.Scale)
		if err != nil {
			t.Fatal(err)
		}
		best, sum := 0, 0.0
		for class, logit := range logits {
			if logit > logits[best] {
				best = class
			}
			sum += math.Exp(float64(logit))
		}
		result.LossSum += math.Log(sum) - float64(logits[label])
		result.Confusion[label][best]++
	}
	return result
}
