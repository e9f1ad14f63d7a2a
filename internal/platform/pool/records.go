// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// records are the activations that can be asked for. The loop writes, any
// goroutine reads.
type records struct {
	mu       sync.Mutex
	byID     map[platform.Activation]*record
	settled  []*record // oldest first
	bytes    job.Bytes // of settled
	countMax int
	bytesMax job.Bytes
}

// record is one activation; outcome and logs are fixed once done is closed.
type record struct {
	id      platform.Activation
	pkg     string
	done    chan struct{}
	outcome platform.Outcome
	logs    []string
	bytes   job.Bytes
}

func makeRecords(cfg Config) records {
	return records{byID: map[platform.Activation]*record{}, countMax: cfg.RecordMax, bytesMax: cfg.RecordBytesMax}
}

func (rs *records) add(id platform.Activation, pkg string) *record {
	r := &record{id: id, pkg: pkg, done: make(chan struct{})}
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.byID[id] = r
	return r
}

func (rs *records) find(id platform.Activation) (*record, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r := rs.byID[id]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("%w: activation %q: it never was, its package was removed, or newer outcomes have pushed it out",
		platform.ErrNotFound, id)
}

// settle publishes an outcome, and forgets the oldest beyond the bounds.
func (rs *records) settle(r *record, outcome platform.Outcome, logs []string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.outcome, r.logs = outcome, logs
	close(r.done)
	if rs.byID[r.id] != r {
		return // its package was removed meanwhile
	}
	r.bytes = job.Bytes(len(outcome.Result) + len(outcome.Message))
	for _, line := range logs {
		r.bytes += job.Bytes(len(line))
	}
	rs.settled = append(rs.settled, r)
	rs.bytes += r.bytes
	for len(rs.settled) > rs.countMax || rs.bytes > rs.bytesMax && len(rs.settled) > 1 {
		oldest := rs.settled[0]
		rs.settled[0] = nil
		rs.settled = rs.settled[1:]
		rs.bytes -= oldest.bytes
		delete(rs.byID, oldest.id)
	}
}

// forget removes the records of a package; who waits for one still gets it.
func (rs *records) forget(pkg string) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for id, r := range rs.byID {
		if r.pkg == pkg {
			delete(rs.byID, id)
		}
	}
	rs.settled = slices.DeleteFunc(rs.settled, func(r *record) bool {
		if r.pkg == pkg {
			rs.bytes -= r.bytes
		}
		return r.pkg == pkg
	})
}

// secretsOf are the texts to take out of what a worker with these init-only
// parameters had a part in.
func secretsOf(env map[string]string) platform.Secrets {
	return platform.Secrets(nil).With(slices.Collect(maps.Values(env))...)
}

// redactResult takes secrets out of the texts in a JSON object. A result without
// any of them stays as it is.
func redactResult(result json.RawMessage, secrets platform.Secrets) json.RawMessage {
	decoder := json.NewDecoder(bytes.NewReader(result))
	decoder.UseNumber()
	var object any
	if len(result) == 0 || decoder.Decode(&object) != nil {
		return result
	}
	found := false
	object = redactAll(object, func(text string) string {
		clean := secrets.Redact(text)
		found = found || clean != text
		return clean
	})
	if !found {
		return result
	}
	clean, err := json.Marshal(object)
	if err != nil {
		panic("BUG: a decoded object cannot be encoded: " + err.Error())
	}
	return clean
}

// redactAll applies clean to all texts in a decoded JSON value, names of members
// too.
func redactAll(value any, clean func(string) string) any {
	switch value := value.(type) {
	case string:
		return clean(value)
	case []any:
		for i, v := range value {
			value[i] = redactAll(v, clean)
		}
	case map[string]any:
		members := make(map[string]any, len(value))
		for _, name := range slices.Sorted(maps.Keys(value)) { // of names that become one, always the same stays
			members[clean(name)] = redactAll(value[name], clean)
		}
		return members
	}
	return value
}
