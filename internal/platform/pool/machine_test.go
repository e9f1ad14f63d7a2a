// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"disdel/internal/job"
	"disdel/internal/platform"
)

// world runs a machine against a driver that answers when the test says so, and
// checks the invariants of the package after every step.
type world struct {
	fatal interface {
		Helper()
		Fatalf(format string, args ...any)
	}
	m       *machine
	now     time.Time
	pending []operation // that the driver is at
	alive   map[string]job.Bytes
	work    map[string]*deployment // what a container was initialised for
	serving map[string]*call
	ended   map[platform.Activation][]platform.Kind
	all     []platform.Activation
}

// operation is a command that the driver has not answered.
type operation struct {
	command
	aborted bool
}

func newWorld(t interface {
	Helper()
	Fatalf(string, ...any)
}, cfg Config,
) *world {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		t.Fatalf("%v", err)
	}
	return &world{
		fatal: t, m: newMachine(cfg), now: epoch, alive: map[string]job.Bytes{}, work: map[string]*deployment{},
		serving: map[string]*call{}, ended: map[platform.Activation][]platform.Kind{},
	}
}

// step runs one event and takes in what is to be done.
func (w *world) step(event func(now time.Time) []command) {
	w.fatal.Helper()
	before := map[*call]bool{}
	for _, c := range w.m.queue {
		before[c] = true
	}
	w.now = w.now.Add(time.Millisecond)
	commands := event(w.now)
	for _, cmd := range commands {
		w.take(cmd)
	}
	// FIFO: nobody who was queued was served before somebody who still is.
	for _, c := range w.m.calls {
		if before[c] && c.container != "" && len(w.m.queue) > 0 && w.m.queue[0].order < c.order {
			w.fatal.Fatalf("call %d overtook call %d", c.order, w.m.queue[0].order)
		}
	}
	w.check()
}

func (w *world) take(cmd command) {
	switch cmd.kind {
	case cmdStart:
		w.alive[cmd.container] = cmd.memory
	case cmdAbort:
		for i := range w.pending {
			if w.pending[i].container == cmd.container && w.pending[i].kind == cmdStart {
				w.pending[i].aborted = true
			}
		}
		return
	case cmdInit, cmdRun, cmdResumeRun:
		if w.alive[cmd.container] == 0 {
			w.fatal.Fatalf("%v in container %s, which does not exist", cmd.kind, cmd.container)
		}
		if other := w.serving[cmd.container]; other != nil && other != cmd.call {
			w.fatal.Fatalf("container %s serves two calls at once", cmd.container)
		}
		if work := w.work[cmd.container]; cmd.kind != cmdInit && work != cmd.work || cmd.kind == cmdInit && work != nil {
			w.fatal.Fatalf("container %s: %v for %+v, was initialised for %+v", cmd.container, cmd.kind, cmd.work, work)
		}
		w.work[cmd.container] = cmd.work
		w.serving[cmd.container] = cmd.call
	case cmdSettle:
		w.ended[cmd.call.id] = append(w.ended[cmd.call.id], cmd.outcome.Kind)
		if w.serving[cmd.container] == cmd.call {
			delete(w.serving, cmd.container)
		}
		return
	}
	w.pending = append(w.pending, operation{command: cmd})
}

func (w *world) check() {
	w.fatal.Helper()
	var booked, alive job.Bytes
	for _, c := range w.m.containers {
		booked += c.booked
		if c.booked < c.memory {
			w.fatal.Fatalf("container %s has %v booked and a limit of %v", c.id, c.booked, c.memory)
		}
	}
	for _, memory := range w.alive {
		alive += memory
	}
	if booked != w.m.booked || booked > w.m.cfg.PoolMemory || alive > booked {
		w.fatal.Fatalf("booked %v, sum of containers %v, of existing ones %v, pool %v", w.m.booked, booked, alive, w.m.cfg.PoolMemory)
	}
	if !slices.IsSortedFunc(w.m.queue, func(a, b *call) int { return a.order - b.order }) {
		w.fatal.Fatalf("queue is out of order")
	}
	for id, kinds := range w.ended {
		if len(kinds) != 1 || w.m.calls[id] != nil {
			w.fatal.Fatalf("call %s ended %v", id, kinds)
		}
	}
}

// complete has the driver answer its i-th operation.
func (w *world) complete(i int, err error) {
	op := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	msg := message{err: err}
	switch op.kind {
	case cmdStart:
		msg.kind, msg.pauses = msgPreWarmCompleted, true
		if err != nil {
			delete(w.alive, op.container)
		}
	case cmdInit:
		msg.kind = msgInitCompleted
	case cmdRun, cmdResumeRun:
		msg.kind, msg.answer = msgRunCompleted, Answer{Kind: platform.Success}
		if errors.Is(err, ErrNotSent) {
			delete(w.serving, op.container)
		}
	case cmdPause:
		msg.kind = msgContainerPaused
	case cmdKill:
		msg = message{kind: msgContainerRemoved, exit: Exit{OutOfMemory: err != nil}}
		delete(w.alive, op.container)
	}
	w.step(func(now time.Time) []command { return w.m.deliver(op.container, msg, now) })
}

func (w *world) submit(action string) error {
	var err error
	id := platform.Activation(fmt.Sprintf("call-%d", len(w.all)))
	w.step(func(now time.Time) []command {
		commands, failed := w.m.submit(&call{id: id, pkg: "p", action: action}, now)
		err = failed
		return commands
	})
	if err == nil {
		w.all = append(w.all, id)
	}
	return err
}

func (w *world) deploy(actions ...platform.Action) {
	w.fatal.Helper()
	w.step(func(now time.Time) []command {
		commands, err := w.m.deploy(platform.Package{Name: "p", Actions: actions}, now)
		if err != nil {
			w.fatal.Fatalf("%v", err)
		}
		return commands
	})
}

// settleAll has the driver answer everything until nothing is left to do.
func (w *world) settleAll() {
	w.fatal.Helper()
	for range 10000 {
		if len(w.pending) == 0 {
			return
		}
		w.complete(0, nil)
	}
	w.fatal.Fatalf("the pool does not come to rest")
}

// onlyIf gives another action its turn where this one makes no sense: rapid draws
// again, and no test is left out.
func onlyIf(r *rapid.T, ok bool) {
	if !ok {
		r.Skip("not now")
	}
}

// TestP_PoolInvariants drives the pool at random; world checks the invariants.
func TestP_PoolInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const mb = job.MB
		cfg := Config{
			MemoryMin: 64 * mb, MemoryMax: 256 * mb, MemoryDefault: 64 * mb, PoolMemory: 320 * mb, Concurrency: 12,
			StartTimeout: time.Second, PauseGrace: 100 * time.Millisecond, IdleTimeout: time.Second,
		}
		if rapid.Bool().Draw(t, "stem cells") {
			cfg.StemCells = []StemCell{{Memory: 64 * mb, Count: 2}, {Image: "i", Memory: 128 * mb, Count: 1}}
		}
		w := newWorld(t, cfg)
		names := []string{"small", "middle", "large"}
		deploy := func(timeout time.Duration) {
			w.deploy(platform.Action{Name: "small", Memory: 64 * mb, Timeout: timeout},
				platform.Action{Name: "middle", Memory: 128 * mb, Timeout: timeout}, platform.Action{Name: "large", Memory: 256 * mb, Timeout: timeout})
		}
		deploy(time.Second)
		failures := []error{nil, nil, nil, errors.New("broke"), ErrNotSent, ErrAnswered}
		type growth struct {
			id           string
			old, granted job.Bytes
		}
		var growing []growth
		t.Repeat(map[string]func(*rapid.T){
			"submit": func(t *rapid.T) {
				err := w.submit(rapid.SampledFrom(names).Draw(t, "action"))
				full := len(w.m.calls) >= cfg.Concurrency
				if err != nil && !(errors.Is(err, platform.ErrThrottled) && full) && !errors.Is(err, platform.ErrNotFound) {
					t.Fatalf("submit: %v with %d calls", err, len(w.m.calls))
				}
			},
			"complete": func(t *rapid.T) {
				onlyIf(t, len(w.pending) > 0)
				w.complete(rapid.IntRange(0, len(w.pending)-1).Draw(t, "operation"), rapid.SampledFrom(failures).Draw(t, "error"))
			},
			"time": func(t *rapid.T) {
				w.now = w.now.Add(time.Duration(rapid.IntRange(1, 1200).Draw(t, "ms")) * time.Millisecond * rapid.SampledFrom([]time.Duration{1, 1, 10}).Draw(t, "scale"))
				w.step(w.m.tick)
				if wake := w.m.nextWake(); !wake.IsZero() && !wake.After(w.now) {
					t.Fatalf("tick at %v leaves a deadline at %v", w.now, wake)
				}
			},
			"cancel": func(t *rapid.T) {
				onlyIf(t, len(w.all) > 0)
				id := rapid.SampledFrom(w.all).Draw(t, "call")
				w.step(func(now time.Time) []command { return w.m.cancel(id, now) })
			},
			"update": func(t *rapid.T) { deploy(time.Duration(rapid.IntRange(1, 2).Draw(t, "timeout")) * time.Second) },
			"remove": func(t *rapid.T) {
				if rapid.IntRange(0, 4).Draw(t, "really") == 0 {
					w.step(func(now time.Time) []command { _, commands := w.m.remove("p", now); return commands })
					if len(w.m.queue) > 0 {
						t.Fatalf("calls of a removed package are queued")
					}
				}
			},
			"prewarm": func(t *rapid.T) {
				w.step(func(now time.Time) []command {
					commands, _ := w.m.prewarm("p", rapid.SampledFrom(names).Draw(t, "action"), rapid.IntRange(0, 4).Draw(t, "count"), now)
					return commands
				})
			},
			"dies": func(t *rapid.T) {
				onlyIf(t, len(w.m.containers) > 0)
				id := rapid.SampledFrom(w.m.containers).Draw(t, "container").id
				w.step(func(now time.Time) []command { return w.m.deliver(id, message{kind: msgHealthPing}, now) })
			},
			"needMemory": func(t *rapid.T) {
				onlyIf(t, len(w.all) > 0)
				limit := job.Bytes(rapid.IntRange(1, 300).Draw(t, "MB")) * mb
				id, old, granted := w.m.needMemory(rapid.SampledFrom(w.all).Draw(t, "call"), limit)
				if granted > cfg.MemoryMax || granted < old {
					t.Fatalf("granted %v of %v, had %v", granted, limit, old)
				}
				if granted > old {
					growing = append(growing, growth{id, old, granted})
				}
				w.check()
			},
			"grew": func(t *rapid.T) {
				onlyIf(t, len(growing) > 0)
				g := growing[0]
				growing = growing[1:]
				limit := rapid.SampledFrom([]job.Bytes{g.old, g.granted}).Draw(t, "limit")
				if w.alive[g.id] > 0 {
					w.alive[g.id] = limit
				}
				w.step(func(now time.Time) []command { return w.m.grew(g.id, limit, now) })
			},
		})
		// Whatever happened, with a driver that works the pool serves all calls.
		w.settleAll()
		if len(w.m.calls) > 0 || len(w.m.queue) > 0 {
			t.Fatalf("%d calls are left, %d of them queued", len(w.m.calls), len(w.m.queue))
		}
		for _, id := range w.all {
			if len(w.ended[id]) != 1 {
				t.Fatalf("call %s ended %v", id, w.ended[id])
			}
		}
		w.step(w.m.shutdown)
		w.settleAll()
		if len(w.m.containers) > 0 || w.m.booked != 0 {
			t.Fatalf("after shutdown %d containers are left, %v booked", len(w.m.containers), w.m.booked)
		}
	})
}

// TestEvictsTheOldestAndOnlyIfItHelps: idle containers go, those idle for
// longest first, and only when that makes room.
func TestEvictsTheOldestAndOnlyIfItHelps(t *testing.T) {
	const mb = job.MB
	w := newWorld(t, Config{MemoryMin: 64 * mb, MemoryMax: 256 * mb, MemoryDefault: 64 * mb, PoolMemory: 256 * mb})
	w.deploy(platform.Action{Name: "a", Memory: 64 * mb}, platform.Action{Name: "b", Memory: 64 * mb}, platform.Action{Name: "c", Memory: 128 * mb},
		platform.Action{Name: "whole", Memory: 256 * mb})
	for _, action := range []string{"a", "b", "c"} {
		if err := w.submit(action); err != nil {
			t.Fatal(err)
		}
		w.settleAll()
	}
	if len(w.m.containers) != 3 || w.m.booked != 256*mb {
		t.Fatalf("%d containers, %v", len(w.m.containers), w.m.booked)
	}
	// c runs; the whole pool cannot be had, so a and b stay warm.
	for _, action := range []string{"c", "whole"} {
		if err := w.submit(action); err != nil {
			t.Fatal(err)
		}
	}
	if idle := w.idle(); idle != 2 {
		t.Fatalf("%d idle containers are left for a call that they cannot help", idle)
	}
	w.settleAll()
	if len(w.ended) != 5 || len(w.m.containers) != 1 {
		t.Fatalf("%d calls ended, %d containers", len(w.ended), len(w.m.containers))
	}
	// a then needs 64 MB, and "whole" is the only one that can go.
	for _, action := range []string{"a", "b", "a", "b"} {
		if err := w.submit(action); err != nil {
			t.Fatal(err)
		}
	}
	w.settleAll()
	if len(w.m.containers) != 4 {
		t.Fatalf("%d containers, want 4", len(w.m.containers))
	}
	// Two of them make room for c: the oldest two.
	oldest := []string{w.m.containers[0].id, w.m.containers[1].id}
	if err := w.submit("c"); err != nil {
		t.Fatal(err)
	}
	for _, c := range w.m.containers {
		if slices.Contains(oldest, c.id) != (c.state == stateRemoving) {
			t.Errorf("container %s is %v", c.id, c.state)
		}
	}
	w.settleAll()
}

// TestEvictsStemCellsLast: they never keep a call waiting for ever, go only when
// other idle containers do not suffice, and are started again when there is room.
func TestEvictsStemCellsLast(t *testing.T) {
	const mb = job.MB
	w := newWorld(t, Config{PoolMemory: 2048 * mb, StemCells: []StemCell{{Image: "i", Memory: 256 * mb, Count: 7}}})
	w.step(w.m.tick)
	w.settleAll()
	cells := func() (n int) {
		for _, c := range w.m.containers {
			if c.work.cell && c.idle() {
				n++
			}
		}
		return n
	}
	submit := func(action string) {
		t.Helper()
		if err := w.submit(action); err != nil {
			t.Fatal(err)
		}
		w.settleAll()
		if len(w.m.queue) > 0 || len(w.ended) != len(w.all) {
			t.Fatalf("%d calls wait for %d stem cells", len(w.m.queue), cells())
		}
	}
	w.deploy(platform.Action{Name: "small", Memory: 256 * mb}, platform.Action{Name: "large", Memory: 512 * mb}, platform.Action{Name: "other", Memory: 512 * mb})
	submit("small")
	if n := cells(); n != 7 {
		t.Fatalf("%d stem cells beside a call that fits, want 7", n)
	}
	// The 256 MB that are idle do not suffice: one cell goes too.
	submit("large")
	if n := cells(); n != 6 {
		t.Fatalf("%d stem cells beside a call of 512 MB, want 6", n)
	}
	// Here they do.
	submit("other")
	if n := cells(); n != 6 {
		t.Fatalf("%d stem cells after another call of 512 MB, want 6", n)
	}
	w.step(func(now time.Time) []command { _, commands := w.m.remove("p", now); return commands })
	w.settleAll()
	if n := cells(); n != 7 {
		t.Errorf("%d stem cells when there is room again, want 7", n)
	}
}

func (w *world) idle() int {
	n := 0
	for _, c := range w.m.containers {
		if c.idle() {
			n++
		}
	}
	return n
}

func TestConfigReportsEverythingWrong(t *testing.T) {
	if err := (Config{}).withDefaults().validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	defaults := Config{}.withDefaults()
	if defaults.MemoryDefault != 256*job.MB || defaults.TimeoutDefault != time.Minute || defaults.PoolMemory != 2048*job.MB ||
		defaults.MemoryMin != 128*job.MB || defaults.MemoryMax != 512*job.MB || defaults.TimeoutMax != 5*time.Minute {
		t.Errorf("defaults are not OpenWhisk's: %+v", defaults)
	}
	for name, cfg := range map[string]Config{
		"max below min":   {MemoryMin: 512 * job.MB, MemoryMax: 128 * job.MB},
		"default outside": {MemoryDefault: 600 * job.MB, MemoryMax: 512 * job.MB},
		"pool too small":  {PoolMemory: 100 * job.MB},
		"step":            {MemoryMin: 128*job.MB + 1},
		"negative":        {Concurrency: -1},
		"timeout":         {TimeoutMin: time.Hour, TimeoutMax: time.Minute},
	} {
		if err := cfg.withDefaults().validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// A large minimum or default raises what was not set.
	for _, cfg := range []Config{{MemoryMin: 1024 * job.MB}, {MemoryDefault: 4096 * job.MB}, {MemoryMax: 64 * job.MB, MemoryMin: 32 * job.MB}, {TimeoutDefault: time.Hour}} {
		if err := cfg.withDefaults().validate(); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
