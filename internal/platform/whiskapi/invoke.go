// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"disdel/internal/platform"
	"disdel/internal/platform/pool"
)

// activation is a call that was accepted.
type activation struct {
	id          platform.Activation
	transaction string
	user        *account
	action      *actionEntity
	function    *pool.Function
	binding     string // "namespace/name" it was called through; "" is none
	received    time.Time
	// record is set once done is closed; nil when there is none.
	record *record
	done   chan struct{}
}

// invoke serves POST of an action. The order of its checks is OpenWhisk's.
func (s *Server) invoke(r *request, namespace, pkg, name string) (_ reply, err error) {
	received := time.Now()
	if err := r.user.throttle.enter(received); err != nil {
		s.metrics.throttled.Inc()
		return reply{}, err
	}
	accepted := false
	defer func() {
		if !accepted {
			r.user.throttle.leave()
		}
	}()
	h, err := s.checkAccess(r, namespace, pkg, name)
	if err != nil {
		return reply{}, err
	}
	body, err := r.readBody(payloadMax, "Request")
	if err != nil {
		return reply{}, err
	}
	wait, resultOnly, blocking, err := r.invokeQuery(s.cfg.Limits.Wait)
	if err != nil {
		return reply{}, err
	}
	payload := object{}
	if len(body) > 0 {
		if payload, err = parseObject(body); err != nil {
			return reply{}, err
		}
	}
	a, err := s.lookUp(h, namespace, name)
	if err != nil {
		return reply{}, err
	}
	defined := h.merged(a)
	if err := checkFinal(a, defined, payload); err != nil {
		return reply{}, err
	}
	if a.exec.kind != blackbox {
		if _, err := s.cfg.kind(a.exec.kind); err != nil {
			return reply{}, err
		}
	}
	act := &activation{
		id: newActivation(), transaction: r.transaction, user: r.user, action: a, received: received, done: make(chan struct{}),
	}
	if h != nil && h.named != h.provider {
		act.binding = h.named.full()
	}
	act.function = s.makeFunction(a, defined, r.user, act.binding)
	ended, err := s.submit(r, act, mergePayload(defined, payload))
	if err != nil {
		return reply{}, err
	}
	accepted = true
	s.calls.Go(func() { s.conclude(act, ended) })
	if !blocking {
		return act.accepted(), nil
	}
	return s.await(r, act, wait, resultOnly), nil
}

// invokeQuery reads the query parameters of an invocation.
func (r *request) invokeQuery(most time.Duration) (wait time.Duration, resultOnly, blocking bool, err error) {
	if blocking, err = r.boolean("blocking"); err != nil {
		return 0, false, false, err
	}
	if resultOnly, err = r.boolean("result"); err != nil {
		return 0, false, false, err
	}
	wait = most
	if text := r.query.Get("timeout"); text != "" {
		ms, err := strconv.ParseInt(text, 10, 64)
		if err != nil || ms < 1 || ms > most.Milliseconds() {
			return 0, false, false, badQuery("timeout", "Timeout must be number of milliseconds up to %d.", most.Milliseconds())
		}
		wait = time.Duration(ms) * time.Millisecond
	}
	return wait, resultOnly, blocking, nil
}

// checkFinal refuses a payload that overrides parameters of an action that is
// marked final.
func checkFinal(a *actionEntity, defined []pair, payload object) error {
	if !truthy(a.annotations, "final", false) {
		return nil
	}
	for _, p := range defined {
		if _, there := payload[p.Key]; there && !isNull(p.Value) {
			return failure(http.StatusBadRequest, textFinal)
		}
	}
	return nil
}

// mergePayload makes what /run gets: the parameters that are not for /init
// alone, overridden by the payload.
func mergePayload(defined []pair, payload object) json.RawMessage {
	merged := object{}
	for _, p := range defined {
		if !p.Init {
			merged[p.Key] = p.Value
		}
	}
	for key, value := range payload {
		merged[key] = value
	}
	return encode(merged)
}

func newActivation() platform.Activation {
	var random [16]byte
	_, _ = rand.Read(random[:]) // documented never to fail
	return platform.Activation(hex.EncodeToString(random[:]))
}

// makeFunction tells the pool what to run. Calls of the same namespace and of
// equal actions share containers, also across a deletion.
func (s *Server) makeFunction(a *actionEntity, defined []pair, user *account, binding string) *pool.Function {
	f := &pool.Function{
		Name: a.name, Version: a.version.String(), Path: "/" + a.path(), Memory: a.limits.memory, Timeout: a.limits.timeout,
		Env: map[string]string{}, Main: a.exec.main, Code: a.exec.code, Binary: a.exec.binary,
		Arrays: s.cfg.Generation >= V2, Reschedule: s.cfg.Generation >= V2, Sentinels: a.exec.kind != blackbox,
		Linger: s.cfg.Faults.RecordDelay,
	}
	for _, p := range defined {
		if p.Init {
			f.Env[p.Key] = variable(p.Value)
		}
	}
	f.Image = a.exec.image
	if a.exec.kind != blackbox {
		managed, err := s.cfg.kind(a.exec.kind)
		if err == nil { // else it has just been checked
			f.Image = managed.Image
		}
	}
	sum := sha256.New()
	_ = json.NewEncoder(sum).Encode([]any{ // a hash takes everything
		user.Namespace, binding, a.namespace, a.pkg, a.name, a.exec.json(true), a.parameters, a.limits.json(), a.version.String(), a.publish,
		a.annotations, f.Env,
	})
	f.Key = hex.EncodeToString(sum.Sum(nil))
	return f
}

// variable is a parameter as an environment variable.
func variable(raw json.RawMessage) string {
	var text string
	if isNull(raw) {
		return ""
	}
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// submit gives a call to the pool. A call whose image cannot be had ends as if
// a pull had failed.
func (s *Server) submit(r *request, act *activation, params json.RawMessage) (<-chan pool.Ended, error) {
	f := act.function
	if !s.cfg.RunsImages {
		if act.action.exec.kind == blackbox && !slices.Contains(s.cfg.WorkerImages, repository(f.Image)) {
			ended := make(chan pool.Ended, 1)
			ended <- pool.Ended{Outcome: platform.Outcome{Kind: platform.Lost}, Err: pool.ErrImage}
			return ended, nil
		}
		f.Image = "" // the pool's own worker
	}
	req := pool.Request{Activation: act.id, Namespace: r.user.Namespace, Transaction: r.transaction, Params: params}
	if truthy(act.action.annotations, "provide-api-key", true) {
		req.APIKey = r.user.Key()
	}
	ended, err := s.cfg.Pool.Submit(r.Context(), f, req)
	switch {
	case errors.Is(err, platform.ErrThrottled):
		s.metrics.throttled.Inc()
		return nil, failure(http.StatusTooManyRequests, "Too many requests")
	case err != nil:
		return nil, failure(http.StatusServiceUnavailable, textUnavailable)
	}
	return ended, nil
}

// conclude makes the record of a call once it has ended.
func (s *Server) conclude(act *activation, ended <-chan pool.Ended) {
	e := <-ended
	defer act.user.throttle.leave()
	defer close(act.done)
	rec := s.makeRecord(act, e)
	s.metrics.ended(rec, e)
	if rec == nil {
		return
	}
	if broke := rec.timedOut || e.Reply == nil && e.Phase != pool.PhaseStart; broke && e.Outcome.Kind != platform.OutOfMemory {
		pause(s.cfg.Faults.BreakDelay)
	}
	act.record = rec
	if delay := s.cfg.Faults.RecordDelay; delay > 0 {
		s.calls.Go(func() {
			pause(delay)
			s.records.add(rec)
		})
		return
	}
	s.records.add(rec)
}

func pause(d time.Duration) {
	if d > 0 {
		time.Sleep(d)
	}
}

// accepted is the answer before the outcome is known.
func (act *activation) accepted() reply {
	return reply{status: http.StatusAccepted, body: map[string]platform.Activation{"activationId": act.id}, activation: string(act.id)}
}

// await waits for a call's outcome and answers with it, or with its id when it
// takes too long.
func (s *Server) await(r *request, act *activation, wait time.Duration, resultOnly bool) reply {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-act.done:
	case <-timer.C:
		return act.accepted()
	case <-r.Context().Done(): // nobody waits any more
		return act.accepted()
	}
	if act.record == nil {
		select {
		case <-timer.C:
		case <-r.Context().Done():
		}
		return act.accepted()
	}
	answer := reply{status: act.record.status.http(), activation: string(act.id)}
	if resultOnly || strings.HasPrefix(string(act.record.result), "[") {
		answer.body = act.record.result
	} else {
		answer.body = act.record.json([]string{})
	}
	return answer
}
