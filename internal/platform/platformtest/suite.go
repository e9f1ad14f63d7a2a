// SPDX-License-Identifier: Apache-2.0

package platformtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// Run runs the suite. Every case opens a platform of its own.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name  string
		slots int
		test  func(b *bench)
	}{
		{"Echo", 1, testEcho},
		{"WarmReuse", 2, testWarmReuse},
		{"DeployIsIdempotent", 2, testDeploy},
		{"DeployRefusesBeyondLimits", 1, testDeployRefused},
		{"InvokeRefuses", 1, testInvokeRefused},
		{"OutOfMemory", 1, testOutOfMemory},
		{"PeakIsMeasured", 1, testPeak},
		{"TimedOut", 1, testTimedOut},
		{"Lost", 1, testLost},
		{"ApplicationError", 1, testApplicationError},
		{"BrokenAnswers", 1, testBrokenAnswers},
		{"InitGoesWrong", 1, testInit},
		{"QueueWhenFull", 2, testQueue},
		{"IdleContainersYield", 2, testYield},
		{"CancelQueuedAndRunning", 1, testCancel},
		{"RemoveEndsEverything", 2, testRemove},
		{"AwaitTwiceAndUnknown", 1, testAwait},
		{"DeadContext", 1, testDeadContext},
		{"ManyCalls", 4, testManyCalls},
		{"SecretsStaySecret", 1, testSecrets},
		{"Logs", 1, testLogs},
		{"Grow", 3, testGrow},
		{"Prewarm", 2, testPrewarm},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(h.open(t, c.slots)) })
	}
}

func testEcho(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	outcome := b.want(b.call("p", "a", map[string]any{"text": "ünï <&> code", "n": 1.5}), platform.Success)
	got := decode[struct{ Echo map[string]any }](b.T, outcome)
	if got.Echo["text"] != "ünï <&> code" || got.Echo["n"] != 1.5 {
		b.Errorf("echo is %v", got.Echo)
	}
	if outcome.Message != "" {
		b.Errorf("success has the message %q", outcome.Message)
	}
	usage := outcome.Usage
	if usage.Container == "" || !usage.Cold || usage.Limit != b.slot ||
		!b.traits.Milliseconds && (usage.Init <= 0 || usage.Duration <= 0) {
		b.Errorf("usage of a cold call: %+v", usage)
	}
	b.want(b.call("p", "a", nil), platform.Success)
}

func testWarmReuse(b *bench) {
	b.deploy("p", platform.Action{Name: "a"}, platform.Action{Name: "other"})
	first := b.want(b.call("p", "a", nil), platform.Success)
	second := b.want(b.call("p", "a", nil), platform.Success)
	if second.Usage.Container != first.Usage.Container || second.Usage.Cold || second.Usage.Init != 0 {
		b.Errorf("second call: %+v, want it warm in container %s", second.Usage, first.Usage.Container)
	}
	other := b.want(b.call("p", "other", nil), platform.Success)
	if other.Usage.Container == first.Usage.Container || !other.Usage.Cold {
		b.Errorf("call of another action: %+v, want it cold and elsewhere", other.Usage)
	}
}

func testDeploy(b *bench) {
	b.deploy("p", platform.Action{Name: "a"}, platform.Action{Name: "stays"})
	first := b.want(b.call("p", "a", nil), platform.Success)
	b.deploy("p", platform.Action{Name: "a"})
	again := b.want(b.call("p", "a", nil), platform.Success)
	if again.Usage.Container != first.Usage.Container {
		b.Error("deploying the same again made the next call cold")
	}
	b.deploy("p", platform.Action{Name: "a", Timeout: 30 * time.Second})
	updated := b.want(b.call("p", "a", nil), platform.Success)
	if !updated.Usage.Cold || updated.Usage.Container == first.Usage.Container {
		b.Errorf("call after an update: %+v, want it cold", updated.Usage)
	}
	b.deployInit("p", map[string]string{"NEW": "1"}, platform.Action{Name: "a", Timeout: 30 * time.Second})
	if outcome := b.want(b.call("p", "a", nil), platform.Success); !outcome.Usage.Cold {
		b.Error("call after an update of the init-only parameters is warm")
	}
	b.want(b.call("p", "stays", nil), platform.Success)
}

func testDeployRefused(b *bench) {
	limits := b.limits
	b.deploy("p", platform.Action{Name: "a"})
	good := platform.Action{Name: "good", Memory: limits.MemoryMin, Timeout: limits.TimeoutDefault}
	with := func(change func(*platform.Action)) []platform.Action {
		bad := platform.Action{Name: "bad", Memory: limits.MemoryMin, Timeout: limits.TimeoutDefault}
		change(&bad)
		return []platform.Action{good, bad}
	}
	for name, c := range map[string]struct {
		actions []platform.Action
		texts   []string
	}{
		"memory": {with(func(a *platform.Action) { a.Memory = limits.MemoryMax + 10*job.MB }), []string{"memory", limits.MemoryMax.String(), "10 MB"}},
		"memory below": {
			with(func(a *platform.Action) { a.Memory = limits.MemoryMin - 3*job.MB }),
			[]string{"memory", limits.MemoryMin.String(), "3 MB"},
		},
		"memory step": {with(func(a *platform.Action) { a.Memory++ }), []string{"memory", "multiple"}},
		"timeout": {
			with(func(a *platform.Action) { a.Timeout = limits.TimeoutMax + 7*time.Second }),
			[]string{"timeout", limits.TimeoutMax.String(), "7s"},
		},
		"name":      {with(func(a *platform.Action) { a.Name = "" }), []string{"name"}},
		"duplicate": {with(func(a *platform.Action) { a.Name = "good" }), []string{"good"}},
	} {
		err := b.platform.Deploy(b.Context(), platform.Package{Name: "p", Actions: c.actions})
		if err == nil {
			b.Errorf("%s: not refused", name)
			continue
		}
		b.wantError(err, platform.ErrRefused, c.texts...)
	}
	_, err := b.platform.Invoke(b.Context(), platform.Call{Package: "p", Action: "good"})
	b.wantError(err, platform.ErrNotFound) // a refused package is not deployed in part
	b.want(b.call("p", "a", nil), platform.Success)
}

func testInvokeRefused(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	_, err := b.platform.Invoke(b.Context(), platform.Call{Package: "p", Action: "b"})
	b.wantError(err, platform.ErrNotFound, "b")
	_, err = b.platform.Invoke(b.Context(), platform.Call{Package: "q", Action: "a"})
	b.wantError(err, platform.ErrNotFound, "q")
	for _, params := range []string{"[]", "1", "{", `{"a":}`, "null"} {
		_, err = b.platform.Invoke(b.Context(), platform.Call{Package: "p", Action: "a", Params: json.RawMessage(params)})
		b.wantError(err, platform.ErrRefused)
	}
	padding := strings.Repeat("x", int(b.limits.PayloadMax))
	_, err = b.platform.Invoke(b.Context(), makeCall(b.T, "p", "a", map[string]any{"text": padding}))
	b.wantError(err, platform.ErrRefused, "payload")

	// Just below the limit is fine, both ways but for what the echo adds.
	outcome := b.want(b.call("p", "a", map[string]any{"text": padding[:len(padding)-200]}), platform.Success)
	if job.Bytes(len(outcome.Result)) <= b.limits.PayloadMax-200 {
		b.Errorf("result has only %d bytes", len(outcome.Result))
	}
	outcome = b.want(b.call("p", "a", map[string]any{"role": "oversize", "bytes": int64(b.limits.PayloadMax) * 2}), platform.ApplicationError)
	if !strings.Contains(outcome.Message, "exceeded") || len(outcome.Result) == 0 {
		b.Errorf("oversized answer: %+v", outcome)
	}
	b.want(b.call("p", "a", nil), platform.Success)
}

func testOutOfMemory(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	first := b.want(b.call("p", "a", nil), platform.Success)
	for range 2 { // warm, then cold
		killed := b.wantKilled(b.call("p", "a", map[string]any{"role": "allocate", "bytes": int64(b.slot) * 3}))
		if !b.traits.VagueMemory && killed.Usage.Peak != b.slot || killed.Usage.Limit != b.slot {
			b.Errorf("peak %v and limit %v of a container killed by its limit, want %v", killed.Usage.Peak, killed.Usage.Limit, b.slot)
		}
		if !strings.Contains(killed.Message, b.slot.String()) {
			b.Errorf("message %q does not name the limit", killed.Message)
		}
	}
	next := b.want(b.call("p", "a", nil), platform.Success)
	if next.Usage.Container == first.Usage.Container || !next.Usage.Cold {
		b.Errorf("call after a kill: %+v, want a new container", next.Usage)
	}
	// Most of the limit can be used, again and again.
	for range 3 {
		b.want(b.call("p", "a", map[string]any{"role": "allocate", "bytes": int64(b.slot) * 3 / 4}), platform.Success)
	}
}

func testPeak(b *bench) {
	const touched = 20 * job.MB
	b.deploy("p", platform.Action{Name: "a"})
	for _, what := range []string{"cold", "warm"} {
		outcome := b.want(b.call("p", "a", map[string]any{"role": "allocate", "bytes": int64(touched)}), platform.Success)
		if peak := outcome.Usage.Peak; peak < touched || peak > touched+15*job.MB {
			b.Errorf("%s: peak is %s after touching %s", what, mib(peak), mib(touched))
		}
	}
	// The mark is that of one call, not of all before it.
	outcome := b.want(b.call("p", "a", nil), platform.Success)
	if peak := outcome.Usage.Peak; peak >= touched || peak < 2*job.MB {
		b.Errorf("peak of a call that does nothing is %s", mib(peak))
	}
}

func testTimedOut(b *bench) {
	const limit = 300 * time.Millisecond
	b.deploy("p", platform.Action{Name: "a", Timeout: limit})
	b.deployInit("hangs", map[string]string{"TEST_INIT": "hang"}, platform.Action{Name: "a", Timeout: limit})
	for _, c := range []struct{ pkg, role string }{{"p", "hang"}, {"p", "spin"}, {"hangs", ""}} {
		began := time.Now()
		outcome := b.want(b.call(c.pkg, "a", map[string]any{"role": c.role}), platform.TimedOut)
		if took := time.Since(began); took < limit || took > limit+2*time.Second+b.traits.Late {
			b.Errorf("%+v took %v, limit %v", c, took, limit)
		}
		if !strings.Contains(outcome.Message, limit.String()) {
			b.Errorf("message %q does not name the limit", outcome.Message)
		}
		if used := max(outcome.Usage.Duration, outcome.Usage.Init); used < limit {
			b.Errorf("%+v: usage %+v is below the limit that it overran", c, outcome.Usage)
		}
	}
	if outcome := b.want(b.call("p", "a", nil), platform.Success); !outcome.Usage.Cold {
		b.Error("container that overran was used again")
	}
}

func testLost(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	for _, c := range []struct {
		params map[string]any
		texts  []string
	}{
		{map[string]any{"role": "exit", "code": 3}, []string{"3", "exiting on request"}},
		{map[string]any{"role": "exit"}, []string{"0"}},
		{map[string]any{"role": "signal", "code": 15}, []string{"terminated"}},
		{map[string]any{"role": "signal", "code": 9}, []string{"kill"}},
	} {
		outcome := b.want(b.call("p", "a", c.params), platform.Lost)
		for _, text := range c.texts {
			if !b.traits.VagueDeaths && !strings.Contains(outcome.Message, text) {
				b.Errorf("%v: message %q does not say %q", c.params, outcome.Message, text)
			}
		}
		b.want(b.call("p", "a", nil), platform.Success)
	}
}

func testApplicationError(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	first := b.want(b.call("p", "a", nil), platform.Success)
	failed := b.want(b.call("p", "a", map[string]any{"role": "error", "text": "no such shard"}), platform.ApplicationError)
	if got := decode[struct{ Error string }](b.T, failed); got.Error != "no such shard" || !strings.Contains(failed.Message, "no such shard") {
		b.Errorf("application error: %+v", failed)
	}
	next := b.want(b.call("p", "a", nil), platform.Success)
	if failed.Usage.Cold || next.Usage.Container != first.Usage.Container {
		b.Error("an application error cost the container")
	}
}

func testBrokenAnswers(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	for _, c := range []struct {
		role string
		code int
		kind platform.Kind
	}{
		{"garbage", 0, platform.ApplicationError},
		{"array", 0, platform.ApplicationError},
		{"status", 500, platform.ApplicationError},
		{"status", 201, platform.ApplicationError},
		{"chunked", 0, platform.Lost},
		{"truncated", 0, platform.Lost},
	} {
		outcome := b.want(b.call("p", "a", map[string]any{"role": c.role, "code": c.code, "text": "why"}), c.kind)
		if c.kind == platform.ApplicationError && decode[map[string]any](b.T, outcome)["error"] == nil {
			b.Errorf("%s: result %s has no error", c.role, outcome.Result)
		}
		if next := b.want(b.call("p", "a", nil), platform.Success); !next.Usage.Cold && !(b.traits.Arrays && c.role == "array") {
			b.Errorf("%s: the container was used again", c.role)
		}
	}
}

func testInit(b *bench) {
	for role, kind := range map[string]platform.Kind{
		"fail": platform.ApplicationError, "exit": platform.Lost, "allocate": platform.OutOfMemory,
	} {
		b.deployInit(role, map[string]string{"TEST_INIT": role}, platform.Action{Name: "a"})
		outcome := b.call(role, "a", nil)
		switch {
		case b.traits.VagueInit && kind != platform.ApplicationError:
			if outcome.Kind != platform.Lost && outcome.Kind != platform.TimedOut {
				b.want(outcome, kind)
			}
		case kind == platform.OutOfMemory:
			b.wantKilled(outcome)
		default:
			b.want(outcome, kind)
		}
		if outcome.Usage.Duration != 0 || !outcome.Usage.Cold {
			b.Errorf("%s: usage %+v of a call that was never run", role, outcome.Usage)
		}
		if strings.Contains(string(outcome.Result), secret) {
			b.Errorf("%s: result shows an init-only parameter: %s", role, outcome.Result)
		}
	}
}

func testQueue(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	holders := []platform.Activation{b.occupy("p", "a"), b.occupy("p", "a")}
	var queued []platform.Activation
	for range 5 {
		queued = append(queued, b.invoke("p", "a", nil))
	}
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	if outcome, err := b.platform.Await(ctx, queued[0]); !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("call ran in a full pool: %+v, %v", outcome, err)
	}
	if err := b.platform.Cancel(b.Context(), holders[0]); err != nil {
		b.Fatal(err)
	}
	b.want(b.await(holders[0]), platform.Cancelled)
	cold := 0
	for i, id := range queued {
		outcome := b.want(b.await(id), platform.Success)
		if outcome.Usage.Wait < 50*time.Millisecond {
			b.Errorf("queued call %d waited %v", i, outcome.Usage.Wait)
		}
		if outcome.Usage.Cold {
			cold++
		}
		if !b.limits.NoCancel && outcome.Usage.Cold != (i == 0) {
			b.Errorf("queued call %d: cold is %v", i, outcome.Usage.Cold)
		}
	}
	if cold > len(holders) {
		b.Errorf("%d containers were started for a pool of %d", cold, len(holders))
	}
}

func testYield(b *bench) {
	b.deploy("p", platform.Action{Name: "a"}, platform.Action{Name: "b"}, platform.Action{Name: "large", Memory: 2 * b.slot})
	b.want(b.call("p", "a", nil), platform.Success)
	b.want(b.call("p", "b", nil), platform.Success)
	b.want(b.call("p", "large", nil), platform.Success)
	b.want(b.call("p", "a", nil), platform.Success)
}

func testCancel(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	running := b.occupy("p", "a")
	queued := b.invoke("p", "a", nil)
	behind := b.invoke("p", "a", nil)
	for _, id := range []platform.Activation{queued, queued, running, running} {
		if err := b.platform.Cancel(b.Context(), id); err != nil {
			b.Fatalf("cancel: %v", err)
		}
	}
	if outcome := b.want(b.await(queued), platform.Cancelled); outcome.Usage.Container != "" {
		b.Errorf("cancelled in the queue, and had container %s", outcome.Usage.Container)
	}
	b.want(b.await(running), platform.Cancelled)
	b.want(b.await(behind), platform.Success)
	if err := b.platform.Cancel(b.Context(), behind); err != nil {
		b.Errorf("cancel what has ended: %v", err)
	}
	b.want(b.await(behind), platform.Success)
	b.wantError(b.platform.Cancel(b.Context(), "unknown"), platform.ErrNotFound)
}

func testRemove(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	b.deploy("q", platform.Action{Name: "a"})
	kept := b.invoke("q", "a", nil)
	b.want(b.await(kept), platform.Success)
	ids := []platform.Activation{b.occupy("p", "a"), b.occupy("p", "a"), b.invoke("p", "a", nil)}
	outcomes := make([]platform.Outcome, len(ids))
	errs := make([]error, len(ids))
	var wait, started sync.WaitGroup
	for i, id := range ids {
		started.Add(1)
		wait.Go(func() {
			started.Done()
			outcomes[i], errs[i] = b.platform.Await(b.Context(), id)
		})
	}
	started.Wait()
	for range 2 {
		if err := b.platform.Remove(b.Context(), "p"); err != nil {
			b.Fatalf("remove: %v", err)
		}
	}
	wait.Wait()
	for i := range ids {
		// Await may have come after Remove had forgotten the call.
		if errs[i] == nil && outcomes[i].Kind != platform.Cancelled || errs[i] != nil && !errors.Is(errs[i], platform.ErrNotFound) {
			b.Errorf("call %d of a removed package: %+v, %v", i, outcomes[i], errs[i])
		}
		_, err := b.platform.Await(b.Context(), ids[i])
		b.wantError(err, platform.ErrNotFound)
	}
	_, err := b.platform.Invoke(b.Context(), platform.Call{Package: "p", Action: "a"})
	b.wantError(err, platform.ErrNotFound)
	b.want(b.await(kept), platform.Success)
	if err := b.platform.Remove(b.Context(), "never deployed"); err != nil {
		b.Errorf("remove what is not there: %v", err)
	}
	b.deploy("p", platform.Action{Name: "a"})
	b.want(b.call("p", "a", nil), platform.Success)
}

func testAwait(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	id := b.invoke("p", "a", map[string]any{"text": "x"})
	first := b.want(b.await(id), platform.Success)
	text := string(first.Result)
	clear(first.Result) // the caller owns it
	if second := b.await(id); string(second.Result) != text || second.Usage != first.Usage {
		b.Errorf("second await: %s, first: %s", second.Result, text)
	}
	_, err := b.platform.Await(b.Context(), "unknown")
	b.wantError(err, platform.ErrNotFound, "unknown")
}

func testDeadContext(b *bench) {
	b.deploy("p", platform.Action{Name: "a"})
	running := b.occupy("p", "a")
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_, err := b.platform.Invoke(ctx, platform.Call{Package: "p", Action: "a"})
	b.wantError(err, context.Canceled)
	_, err = b.platform.Await(ctx, running)
	b.wantError(err, context.Canceled)
	b.wantError(b.platform.Deploy(ctx, platform.Package{Name: "p"}), context.Canceled)
	b.wantError(b.platform.Remove(ctx, "p"), context.Canceled)
	if err := b.platform.Cancel(b.Context(), running); err != nil {
		b.Fatal(err)
	}
	b.want(b.await(running), platform.Cancelled) // it was still there
}

func testManyCalls(b *bench) {
	b.deploy("p", platform.Action{Name: "a"}, platform.Action{Name: "b"})
	calls := 200
	if most := b.limits.Concurrency; most > 0 {
		calls = min(calls, most)
	}
	var wait sync.WaitGroup
	for i := range calls {
		wait.Go(func() {
			call := makeCall(b.T, "p", []string{"a", "b"}[i%2], map[string]any{"text": fmt.Sprint(i)})
			id, err := b.patiently(call)
			if err != nil {
				b.Errorf("invoke %d: %v", i, err)
				return
			}
			outcome, err := b.platform.Await(b.Context(), id)
			if err != nil || outcome.Kind != platform.Success {
				b.Errorf("call %d: %+v, %v", i, outcome, err)
				return
			}
			if got := decode[struct{ Echo map[string]string }](b.T, outcome); got.Echo["text"] != fmt.Sprint(i) {
				b.Errorf("call %d got the answer %s", i, outcome.Result)
			}
		})
	}
	wait.Wait()
}
