// SPDX-License-Identifier: Apache-2.0

package job

import (
	"encoding/binary"
	"math"
)

// Prediction is what a model makes of one test record.
type Prediction struct {
	// Label is the true class, Class the predicted one.
	Label, Class uint16
	// Probability is what the model gives Class.
	Probability float32
}

// PredictionBytes is the size of one prediction in a store.
const PredictionBytes = 8

// AppendPrediction appends a prediction to the ones before it: label, class and the
// bits of the probability, little-endian.
func AppendPrediction(b []byte, p Prediction) []byte {
	b = binary.LittleEndian.AppendUint16(b, p.Label)
	b = binary.LittleEndian.AppendUint16(b, p.Class)
	return binary.LittleEndian.AppendUint32(b, math.Float32bits(p.Probability))
}

// DecodePrediction reads what AppendPrediction wrote, from the first
// PredictionBytes of b.
func DecodePrediction(b []byte) Prediction {
	return Prediction{
		Label: binary.LittleEndian.Uint16(b), Class: binary.LittleEndian.Uint16(b[2:]),
		Probability: math.Float32frombits(binary.LittleEndian.Uint32(b[4:])),
	}
}
