// SPDX-License-Identifier: Apache-2.0

package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"disdel/internal/job"
	"disdel/internal/platform"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeDriver makes containers that do what a call's parameters say, in the
// time of the bubble that they are in.
type fakeDriver struct {
	startTime time.Duration
	startErr  error
	stuck     chan struct{} // see fakeBox

	mu       sync.Mutex
	boxes    []*fakeBox
	inForce  job.Bytes // sum of limits
	most     job.Bytes
	closed   bool
	overlaps atomic.Int32
}

func (d *fakeDriver) Facts() Facts {
	return Facts{Name: "fake", Enforcement: "none", Processors: 3, LocalFiles: true}
}

func (d *fakeDriver) Start(ctx context.Context, spec Spec) (Container, error) {
	if d.startErr != nil {
		return nil, d.startErr
	}
	b := &fakeBox{driver: d, stuck: d.stuck, limit: spec.Memory, done: make(chan struct{})}
	d.mu.Lock()
	d.boxes = append(d.boxes, b)
	d.account(spec.Memory)
	d.mu.Unlock()
	if err := pass(ctx, d.startTime); err != nil {
		b.Kill()
		return nil, err
	}
	return b, nil
}

func (d *fakeDriver) account(change job.Bytes) {
	d.inForce += change
	d.most = max(d.most, d.inForce)
}

func (d *fakeDriver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.inForce != 0 {
		return fmt.Errorf("closed with %v in use", d.inForce)
	}
	return nil
}

func (d *fakeDriver) box(i int) *fakeBox {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boxes[i]
}

func pass(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type fakeBox struct {
	driver *fakeDriver
	limit  job.Bytes
	busy   atomic.Int32
	paused atomic.Bool
	pauses atomic.Int32
	end    sync.Once
	stuck  chan struct{} // nil, or what Kill waits for
	done   chan struct{}
	exit   Exit
}

type fakeParams struct {
	Takes time.Duration
	Die   bool
	Wrong bool
}

func (b *fakeBox) Init(ctx context.Context, req InitRequest) error {
	takes, _ := time.ParseDuration(req.Env["INIT"])
	return pass(ctx, takes)
}

func (b *fakeBox) Run(ctx context.Context, req RunRequest) (Answer, error) {
	select {
	case <-b.done:
		return Answer{}, ErrNotSent
	default:
	}
	if b.busy.Add(1) > 1 || b.paused.Load() {
		b.driver.overlaps.Add(1)
	}
	defer b.busy.Add(-1)
	var p fakeParams
	if err := json.Unmarshal(req.Params, &p); err != nil {
		return Answer{}, err
	}
	if err := pass(ctx, p.Takes); err != nil {
		return Answer{}, err
	}
	switch {
	case p.Die:
		b.die(Exit{Status: "exit status 9"})
		return Answer{}, errors.New("connection broke")
	case p.Wrong:
		return Answer{Kind: platform.ApplicationError, Message: "wrong, s3cr3t"}, nil
	}
	return Answer{Kind: platform.Success, Result: req.Params, Peak: 1, Logs: makeLines("said s3cr3t")}, nil
}

func (b *fakeBox) die(exit Exit) {
	b.end.Do(func() {
		b.exit = exit
		b.driver.mu.Lock()
		b.driver.account(-b.limit)
		b.driver.mu.Unlock()
		close(b.done)
	})
}

func (b *fakeBox) Grow(_ context.Context, limit job.Bytes) (job.Bytes, error) {
	b.driver.mu.Lock()
	defer b.driver.mu.Unlock()
	b.driver.account(limit - b.limit)
	b.limit = limit
	return limit, nil
}

func (b *fakeBox) Kill() Exit {
	if b.stuck != nil {
		<-b.stuck
	}
	b.die(Exit{})
	return b.exit
}

func (b *fakeBox) Done() <-chan struct{} { return b.done }
func (b *fakeBox) Pause() error          { b.paused.Store(true); b.pauses.Add(1); return nil }
func (b *fakeBox) Resume() error         { b.paused.Store(false); return nil }

// bubble runs a test of a pool in virtual time.
func bubble(t *testing.T, cfg Config, d *fakeDriver, test func(t *testing.T, p *Pool)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, err := Open(t.Context(), cfg, d)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if !d.closed || d.overlaps.Load() > 0 || d.most > p.cfg.PoolMemory {
				t.Errorf("closed %v, overlaps %d, most memory %v of %v", d.closed, d.overlaps.Load(), d.most, p.cfg.PoolMemory)
			}
		}()
		if err := p.Deploy(t.Context(), platform.Package{
			Name: "p", Init: map[string]string{"PASSWORD": "s3cr3t"}, Actions: []platform.Action{{Name: "a", Timeout: 10 * time.Second}},
		}); err != nil {
			t.Fatal(err)
		}
		test(t, p)
	})
}

func start(t *testing.T, p *Pool, params fakeParams) platform.Activation {
	t.Helper()
	text, err := json.Marshal(params)
	if err != nil {
		t.Fatal(err)
	}
	id, err := p.Invoke(t.Context(), platform.Call{Package: "p", Action: "a", Params: text})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func finish(t *testing.T, p *Pool, id platform.Activation, kind platform.Kind) platform.Outcome {
	t.Helper()
	outcome, err := p.Await(t.Context(), id)
	if err != nil || outcome.Kind != kind {
		t.Fatalf("outcome %+v, %v, want %s", outcome, err, kind)
	}
	return outcome
}

func TestRunTimes(t *testing.T) {
	bubble(t, Config{}, &fakeDriver{startTime: time.Second}, func(t *testing.T, p *Pool) {
		cold := finish(t, p, start(t, p, fakeParams{Takes: 2 * time.Second}), platform.Success)
		if u := cold.Usage; u.Init != time.Second || u.Duration != 2*time.Second || u.Wait != 0 || !u.Cold {
			t.Errorf("usage %+v", u)
		}
		late := finish(t, p, start(t, p, fakeParams{Takes: time.Hour}), platform.TimedOut)
		if u := late.Usage; u.Duration != 10*time.Second {
			t.Errorf("usage %+v", u)
		}
		wrong := finish(t, p, start(t, p, fakeParams{Wrong: true}), platform.ApplicationError)
		if string(wrong.Result) != `{"error":"wrong, [redacted]"}` || wrong.Message != "wrong, [redacted]" {
			t.Errorf("application error %+v: %s", wrong, wrong.Result)
		}
		lost := finish(t, p, start(t, p, fakeParams{Die: true}), platform.Lost)
		if !strings.Contains(lost.Message, "exit status 9") {
			t.Errorf("lost: %s", lost.Message)
		}
	})
}

func TestRunPausesAndRemovesIdle(t *testing.T) {
	d := &fakeDriver{}
	bubble(t, Config{}, d, func(t *testing.T, p *Pool) {
		first := finish(t, p, start(t, p, fakeParams{}), platform.Success)
		time.Sleep(11 * time.Second) // of the bubble
		synctest.Wait()
		if !d.box(0).paused.Load() {
			t.Error("idle container is not paused")
		}
		second := finish(t, p, start(t, p, fakeParams{}), platform.Success)
		if second.Usage.Container != first.Usage.Container || d.box(0).paused.Load() {
			t.Errorf("paused container was not resumed: %+v", second.Usage)
		}
		time.Sleep(9*time.Minute + 59*time.Second)
		synctest.Wait()
		select {
		case <-d.box(0).done:
			t.Error("container was removed before its time")
		default:
		}
		time.Sleep(time.Second)
		synctest.Wait()
		<-d.box(0).done
		if third := finish(t, p, start(t, p, fakeParams{}), platform.Success); !third.Usage.Cold {
			t.Errorf("usage %+v", third.Usage)
		}
	})
}

func TestRunReplacesWhatDiedIdle(t *testing.T) {
	d := &fakeDriver{}
	bubble(t, Config{}, d, func(t *testing.T, p *Pool) {
		finish(t, p, start(t, p, fakeParams{}), platform.Success)
		d.box(0).die(Exit{})
		// Whether the pool hears of the death before the call or by it, the call is
		// served.
		if next := finish(t, p, start(t, p, fakeParams{}), platform.Success); !next.Usage.Cold {
			t.Errorf("usage %+v", next.Usage)
		}
	})
}

func TestRunStart(t *testing.T) {
	bubble(t, Config{StartTimeout: 5 * time.Second}, &fakeDriver{startTime: time.Hour}, func(t *testing.T, p *Pool) {
		began := time.Now()
		lost := finish(t, p, start(t, p, fakeParams{}), platform.Lost)
		if time.Since(began) != 5*time.Second || !strings.Contains(lost.Message, "5s") {
			t.Errorf("after %v: %s", time.Since(began), lost.Message)
		}
	})
	bubble(t, Config{}, &fakeDriver{startErr: errors.New("no more processes")}, func(t *testing.T, p *Pool) {
		if lost := finish(t, p, start(t, p, fakeParams{}), platform.Lost); !strings.Contains(lost.Message, "no more processes") {
			t.Error(lost.Message)
		}
	})
}

func TestRunThrottlesAndForgets(t *testing.T) {
	bubble(t, Config{Concurrency: 3, RecordMax: 4}, &fakeDriver{}, func(t *testing.T, p *Pool) {
		var ids []platform.Activation
		for i := range 3 {
			ids = append(ids, start(t, p, fakeParams{Takes: time.Duration(i+1) * time.Second}))
		}
		_, err := p.Invoke(t.Context(), platform.Call{Package: "p", Action: "a"})
		if !errors.Is(err, platform.ErrThrottled) || platform.KindOf(err) != platform.Throttled {
			t.Errorf("fourth call: %v", err)
		}
		for _, id := range ids {
			finish(t, p, id, platform.Success)
		}
		for range 3 {
			id := start(t, p, fakeParams{})
			finish(t, p, id, platform.Success)
			ids = append(ids, id)
		}
		for i, id := range ids {
			_, err := p.Await(t.Context(), id)
			if forgotten := i < 2; errors.Is(err, platform.ErrNotFound) != forgotten {
				t.Errorf("outcome %d of 6, 4 kept: %v", i, err)
			}
		}
		if lines, err := p.Logs(t.Context(), ids[5]); err != nil || len(lines) != 1 || lines[0] != "said [redacted]" {
			t.Errorf("logs %q, %v", lines, err)
		}
	})
}

func TestRunClose(t *testing.T) {
	d := &fakeDriver{startTime: time.Second}
	bubble(t, Config{PoolMemory: 512 * job.MB}, d, func(t *testing.T, p *Pool) {
		finish(t, p, start(t, p, fakeParams{}), platform.Success)
		running, starting, queued := start(t, p, fakeParams{Takes: time.Minute}), start(t, p, fakeParams{}), start(t, p, fakeParams{})
		var wait sync.WaitGroup
		for range 3 {
			wait.Go(func() { _ = p.Close() })
		}
		wait.Wait()
		for _, id := range []platform.Activation{running, starting, queued} {
			finish(t, p, id, platform.Cancelled)
		}
		_, err := p.Invoke(t.Context(), platform.Call{Package: "p", Action: "a"})
		if !errors.Is(err, platform.ErrUnavailable) {
			t.Errorf("invoke after close: %v", err)
		}
		for what, err := range map[string]error{
			"deploy": p.Deploy(t.Context(), platform.Package{Name: "p"}), "remove": p.Remove(t.Context(), "p"),
			"prewarm": p.Prewarm(t.Context(), "p", "a", 1),
		} {
			if !errors.Is(err, platform.ErrUnavailable) {
				t.Errorf("%s after close: %v", what, err)
			}
		}
	})
}

// TestRunClose_Bounded: a container that cannot be killed does not keep Close for
// ever.
func TestRunClose_Bounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &fakeDriver{stuck: make(chan struct{})}
		p, err := Open(t.Context(), Config{CloseTimeout: 7 * time.Second}, d)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Deploy(t.Context(), platform.Package{Name: "p", Actions: []platform.Action{{Name: "a", Timeout: 10 * time.Second}}}); err != nil {
			t.Fatal(err)
		}
		finish(t, p, start(t, p, fakeParams{}), platform.Success)
		began := time.Now()
		err = p.Close()
		if took := time.Since(began); took != 7*time.Second || !errors.Is(err, platform.ErrUnavailable) || !strings.Contains(err.Error(), "still the containers [") {
			t.Errorf("after %v: %v", took, err)
		}
		if d.closed {
			t.Error("the driver was closed although it has a container")
		}
		close(d.stuck) // the disk answers at last
		synctest.Wait()
	})
}

// TestRedactResult: values of init-only parameters leave no result, however JSON
// writes them, and numbers stay what they are.
func TestRedactResult(t *testing.T) {
	secrets := secretsOf(map[string]string{"A": "p&ss\"w<rd", "B": "1234", "C": "abc", "D": "redis://:hunter2@store:6379"})
	for result, want := range map[string]string{
		`{"a":"no secret", "n":12345678901234567890}`:      `{"a":"no secret", "n":12345678901234567890}`,
		`{"a":"x p\u0026ss\"w\u003crd y","n":1.50}`:        `{"a":"x [redacted] y","n":1.50}`,
		`{"a":["p&ss\"w<rd",{"b 1234":"c1234"}],"n":1234}`: `{"a":["[redacted]",{"b [redacted]":"c[redacted]"}],"n":1234}`,
		`{"short values":"abc"}`:                           `{"short values":"abc"}`,
		`{"of a URL":["hunter2"]}`:                         `{"of a URL":["[redacted]"]}`,
		`{"1234":{"1234":1},"b":{"c":"hunter2"}}`:          `{"[redacted]":{"[redacted]":1},"b":{"c":"[redacted]"}}`,
		`{"1234":1,"hunter2":2}`:                           `{"[redacted]":2}`,
		``:                                                 ``,
		`no JSON`:                                          `no JSON`,
	} {
		if got := redactResult(json.RawMessage(result), secrets); string(got) != want {
			t.Errorf("%s: %s; want %s", result, got, want)
		}
	}
}

func TestRunOpenRefusesAndClosesTheDriver(t *testing.T) {
	d := &fakeDriver{}
	_, err := Open(t.Context(), Config{PoolMemory: job.MB}, d)
	if err == nil || !strings.Contains(err.Error(), "pool memory") || !d.closed {
		t.Errorf("open: %v, driver closed: %v", err, d.closed)
	}
}

// TestRunHammer calls everything at once, for the race detector.
func TestRunHammer(t *testing.T) {
	d := &fakeDriver{}
	bubble(t, Config{PoolMemory: 1024 * job.MB, Concurrency: 50, PauseGrace: time.Millisecond, IdleTimeout: 5 * time.Millisecond}, d, func(t *testing.T, p *Pool) {
		var wait sync.WaitGroup
		var served atomic.Int32
		for i := range 16 {
			wait.Go(func() {
				for j := range 50 {
					params := json.RawMessage(fmt.Sprintf(`{"Takes":%d,"Die":%v}`, time.Duration((i+j)%7)*time.Millisecond, (i*j)%11 == 5))
					id, err := p.Invoke(t.Context(), platform.Call{Package: "p", Action: "a", Params: params})
					if err != nil {
						switch {
						case errors.Is(err, platform.ErrNotFound): // removed
							_ = p.Deploy(t.Context(), platform.Package{Name: "p", Actions: []platform.Action{{Name: "a"}}})
						case !errors.Is(err, platform.ErrThrottled):
							t.Error(err)
						}
						continue
					}
					switch j % 5 {
					case 0:
						_ = p.Cancel(t.Context(), id)
					case 1:
						_, _ = p.Grow(t.Context(), id, 512*job.MB)
					case 2:
						_ = p.Prewarm(t.Context(), "p", "a", 2)
					case 3:
						timeout := time.Duration(5+i%2) * time.Second
						_ = p.Deploy(t.Context(), platform.Package{Name: "p", Actions: []platform.Action{{Name: "a", Timeout: timeout}}})
					case 4:
						if i == 0 && j%20 == 4 {
							_ = p.Remove(t.Context(), "p")
						}
					}
					if _, err := p.Await(t.Context(), id); err == nil {
						served.Add(1)
					}
				}
			})
		}
		wait.Wait()
		if served.Load() < 100 {
			t.Errorf("only %d calls were served", served.Load())
		}
	})
}
