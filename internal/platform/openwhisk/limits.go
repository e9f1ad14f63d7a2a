// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Enforcement is what Limits say about who enforces memory limits: the
// deployment, in a way that it does not tell.
const Enforcement = "openwhisk"

// stock are OpenWhisk's own defaults, for what a deployment does not tell.
func stock() platform.Limits {
	return platform.Limits{
		MemoryMin: 128 * job.MB, MemoryMax: 512 * job.MB, MemoryStep: job.MB, MemoryDefault: 256 * job.MB,
		TimeoutMin: 100 * time.Millisecond, TimeoutMax: 5 * time.Minute, TimeoutDefault: time.Minute,
		Concurrency: 30, CallsPerMinute: 60, PayloadMax: job.MB,
		Enforcement: Enforcement, NoCancel: true,
	}
}

// Limits implements platform.Platform. It asks the deployment and the namespace
// once.
func (c *Client) Limits(ctx context.Context) (platform.Limits, error) {
	facts, err := c.discover(ctx)
	return facts.limits, err
}

// facts are what a deployment tells of itself.
type facts struct {
	limits   platform.Limits
	runtimes map[string][]runtime
	// logs is an action's log limit in megabytes.
	logs int64
}

func (c *Client) discover(ctx context.Context) (facts, error) {
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.facts != nil {
		return *c.facts, nil
	}
	// The namespace first: it needs the key, whose faults are the likeliest.
	r := request{method: http.MethodGet, path: c.path("limits")}
	a, err := c.do(ctx, r)
	if err != nil {
		return facts{}, err
	}
	own := map[string]json.RawMessage{}
	switch {
	case a.status == http.StatusOK:
		err = c.decode(r, a, &own)
	case a.status == http.StatusNotFound && isAPIError(a.body):
		// Some deployments leave this out.
	default:
		err = c.failure(r, a)
	}
	if err != nil {
		return facts{}, err
	}
	var told info
	a, err = c.do(ctx, request{method: http.MethodGet, path: "/"})
	if err != nil {
		return facts{}, err
	}
	if a.status == http.StatusOK {
		// Behind a proxy this path may be anything: then OpenWhisk's own defaults
		// stand, and what they are wrong about is learned from refusals.
		told = parseInfo(a.body)
	}
	f := makeFacts(told, own)
	f.limits.PoolMemory, f.limits.Processors, f.limits.Assumed = c.cfg.PoolMemory, c.cfg.Processors, true
	if err := checkLimits(f.limits); err != nil {
		return facts{}, fmt.Errorf("%w: limits of %s: %w", platform.ErrUnavailable, c.base, err)
	}
	c.facts = &f
	return f, nil
}

// parseInfo reads what a deployment tells; what cannot be read is left out.
func parseInfo(body []byte) (told info) {
	var raw struct{ Limits, Runtimes json.RawMessage }
	if json.Unmarshal(body, &raw) != nil {
		return info{}
	}
	if json.Unmarshal(raw.Limits, &told.Limits) != nil {
		told.Limits = nil
	}
	if json.Unmarshal(raw.Runtimes, &told.Runtimes) != nil {
		told.Runtimes = nil
	}
	return told
}

// makeFacts joins what the deployment tells of all with what it tells of the
// namespace, whose limits are never wider.
func makeFacts(told info, own map[string]json.RawMessage) facts {
	l := stock()
	f := facts{runtimes: told.Runtimes, logs: 1}
	set := func(from map[string]json.RawMessage, name string, unit int64, to func(int64)) {
		if value, ok := number(from[name], unit); ok {
			to(value)
		}
	}
	bytes := func(to *job.Bytes) func(int64) { return func(v int64) { *to = job.Bytes(v) } }
	times := func(to *time.Duration) func(int64) { return func(v int64) { *to = time.Duration(v) } }
	count := func(to *int) func(int64) { return func(v int64) { *to = int(min(v, 1<<30)) } }
	var logsMin, logsMax job.Bytes = 0, 10 * job.MB
	ms, mb := int64(time.Millisecond), int64(job.MB)
	set(told.Limits, "min_action_memory", 1, bytes(&l.MemoryMin))
	set(told.Limits, "max_action_memory", 1, bytes(&l.MemoryMax))
	set(told.Limits, "min_action_duration", ms, times(&l.TimeoutMin))
	set(told.Limits, "max_action_duration", ms, times(&l.TimeoutMax))
	set(told.Limits, "min_action_logs", 1, bytes(&logsMin))
	set(told.Limits, "max_action_logs", 1, bytes(&logsMax))
	set(told.Limits, "actions_per_minute", 1, count(&l.CallsPerMinute))
	set(told.Limits, "concurrent_actions", 1, count(&l.Concurrency))
	set(own, "minActionMemory", mb, bytes(&l.MemoryMin))
	set(own, "maxActionMemory", mb, bytes(&l.MemoryMax))
	set(own, "minActionTimeout", ms, times(&l.TimeoutMin))
	set(own, "maxActionTimeout", ms, times(&l.TimeoutMax))
	set(own, "minActionLogs", mb, bytes(&logsMin))
	set(own, "maxActionLogs", mb, bytes(&logsMax))
	set(own, "invocationsPerMinute", 1, count(&l.CallsPerMinute))
	set(own, "concurrentInvocations", 1, count(&l.Concurrency))
	l.MemoryMin = l.MemoryMin.CeilTo(job.MB)
	l.MemoryMax = l.MemoryMax / job.MB * job.MB
	l.MemoryDefault = min(max(l.MemoryDefault, l.MemoryMin), l.MemoryMax)
	l.TimeoutDefault = min(max(l.TimeoutDefault, l.TimeoutMin), l.TimeoutMax)
	f.limits = l
	// Workers print next to nothing.
	f.logs = int64(min(max(job.MB, logsMin), logsMax) / job.MB)
	return f
}

// number reads a number and multiplies it. Some releases write numbers as text.
func number(raw json.RawMessage, unit int64) (int64, bool) {
	var value float64
	var text string
	if json.Unmarshal(raw, &text) == nil {
		var err error
		if value, err = strconv.ParseFloat(text, 64); err != nil {
			return 0, false
		}
	} else if raw == nil || json.Unmarshal(raw, &value) != nil {
		return 0, false
	}
	value *= float64(unit)
	if !(value >= 0 && value < 1<<62) {
		return 0, false
	}
	return int64(value), true
}

func checkLimits(l platform.Limits) error {
	switch {
	case l.MemoryMin <= 0 || l.MemoryMax < l.MemoryMin:
		return fmt.Errorf("actions of %v to %v", l.MemoryMin, l.MemoryMax)
	case l.TimeoutMin < 0 || l.TimeoutMax < max(l.TimeoutMin, time.Millisecond):
		return fmt.Errorf("time limits of %v to %v", l.TimeoutMin, l.TimeoutMax)
	case l.Concurrency < 1 || l.CallsPerMinute < 1:
		return fmt.Errorf("%d calls a minute, %d at once: this namespace may call nothing", l.CallsPerMinute, l.Concurrency)
	}
	return nil
}

// threshold finds the limit in a refusal of an action. Release 1.0.0 prints
// sizes in bytes, later ones in megabytes.
var threshold = regexp.MustCompile(`(memory|duration|log size).{1,60}(exceeds|below) allowed threshold of (\d{1,18})( B| MB| milliseconds)?`)

// learn corrects the limits after a refusal that names one of them, and says so
// in the error.
func (c *Client) learn(err error) error {
	if !errors.Is(err, platform.ErrRefused) {
		return err
	}
	m := threshold.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	n, parseErr := strconv.ParseInt(m[3], 10, 64)
	if parseErr != nil {
		return err
	}
	size := job.Bytes(n)
	if m[4] != " B" && n < 1<<40 {
		size *= job.MB
	}
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.facts == nil {
		return err
	}
	l := &c.facts.limits
	over := m[2] == "exceeds"
	switch {
	case m[1] == "memory" && over:
		l.MemoryMax = size
		return fmt.Errorf("%w (the largest action has %v of memory)", err, size)
	case m[1] == "memory":
		l.MemoryMin = size
		return fmt.Errorf("%w (the smallest action has %v of memory)", err, size)
	case m[1] == "duration" && over:
		l.TimeoutMax = time.Duration(n) * time.Millisecond
		return fmt.Errorf("%w (the longest timeout is %v)", err, l.TimeoutMax)
	case m[1] == "duration":
		l.TimeoutMin = time.Duration(n) * time.Millisecond
		return fmt.Errorf("%w (the shortest timeout is %v)", err, l.TimeoutMin)
	default:
		c.facts.logs = int64(size / job.MB)
	}
	return err
}
