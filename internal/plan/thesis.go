// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"disdel/internal/job"
)

// valueBytes is the size of a float32.
const valueBytes = 4

// thesisEstimate is the memory of training by the thesis's own formula (Assogba
// 2020, section 4.1), from the features Sample, Attribute and Parameter:
//
//	memory = fit + pkg + dta + mod + saf
//	fit    = epochs x Parameter x steps, with Sample / batch steps
//	dta    = Sample x Attribute values
//	mod    = Parameter values
//
// The features are those of the data set and the model, so the number of
// replicas changes nothing. fit has no unit there; it is taken as bytes. Values
// are float32. pkg is what the probe measured and saf is disdel's own, since the
// formula gives no number for them.
func thesisEstimate(n job.Numerics, m model, probe job.Probe) job.Estimate {
	return withSafety(job.Estimate{
		Fit:     product(n.Epochs, m.parameters, thesisSteps(n)),
		Package: probe.Package,
		Data:    product(n.Dataset.Train, int(n.Dataset.RecordBytes()), valueBytes),
		Model:   product(m.parameters, valueBytes),
	}, probe)
}

// thesisSteps is the number of steps in one pass over all records.
func thesisSteps(n job.Numerics) int {
	batch := max(n.Batch, 1)
	return (n.Dataset.Train-1)/batch + 1
}

// product multiplies as bytes, and stays where sums of some do not overflow.
func product(factors ...int) job.Bytes {
	const most = math.MaxInt64 / 16
	p := int64(1)
	for _, f := range factors {
		if f > 0 && p > most/int64(f) {
			return most
		}
		p *= int64(f)
	}
	return job.Bytes(p)
}

// byThesis has training estimated by the formula, and writes that out.
func (w *work) byThesis() {
	n := *w.numerics
	e := thesisEstimate(n, w.model, w.probe)
	w.fixed = &e
	w.terms = fmt.Sprintf("by the thesis's formula train takes fit %v (%d epochs x %d parameters x %d steps, taken as bytes) + pkg %v + dta %v + mod %v + saf %v = %v",
		e.Fit, n.Epochs, w.model.parameters, thesisSteps(n), e.Package, e.Data, e.Model, e.Safety, e.Total())
}

// explainThesis adds the terms, where there are any, to an error about memory.
func (w *work) explainThesis(err error) error {
	var short *Infeasible
	if w.terms == "" || !errors.As(err, &short) {
		return err
	}
	told := *short
	told.Detail = fmt.Sprintf("%s; %s; --estimator exact counts what a worker really takes",
		strings.TrimSuffix(told.Detail, "; "+lessMemory(job.RoleTrain, 0)), w.terms)
	return &told
}
