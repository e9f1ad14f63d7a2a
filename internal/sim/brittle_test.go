// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"disdel/internal/job"
	"disdel/internal/platform"
	"disdel/internal/store"
)

// brittle is a store one of whose operations fails.
type brittle struct {
	store.Store
	// gate is asked before every operation and may refuse it.
	gate func(op string) error
	// failAt counts operations from 1; that one fails with failWith (default
	// ErrUnavailable), after it has had its effect where after is set.
	failAt   int
	failWith error
	after    bool
	// appended is called after every Append that succeeded.
	appended func()

	mu    sync.Mutex
	count int
}

// begin says whether the operation may run, and what it returns instead of its
// own result afterwards.
func (b *brittle) begin(op string) (before, after error) {
	if b.gate != nil {
		if err := b.gate(op); err != nil {
			return err, nil
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count++
	if b.count != b.failAt {
		return nil, nil
	}
	err := b.failWith
	if err == nil {
		err = fmt.Errorf("simulated fault of %s: %w", op, store.ErrUnavailable)
	}
	if b.after {
		return nil, err
	}
	return err, nil
}

// failed says whether the fault has happened.
func (b *brittle) failed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failAt > 0 && b.count >= b.failAt
}

func (b *brittle) PutIfAbsent(ctx context.Context, key string, write func(io.Writer) error) (bool, error) {
	before, after := b.begin("put")
	if before != nil {
		return false, before
	}
	created, err := b.Store.PutIfAbsent(ctx, key, write)
	return created, errors.Join(err, after)
}

func (b *brittle) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	before, after := b.begin("get")
	if err := errors.Join(before, after); err != nil {
		return nil, err
	}
	return b.Store.Get(ctx, key)
}

func (b *brittle) List(ctx context.Context, prefix string) ([]string, error) {
	before, after := b.begin("list")
	if err := errors.Join(before, after); err != nil {
		return nil, err
	}
	return b.Store.List(ctx, prefix)
}

func (b *brittle) Delete(ctx context.Context, keys ...string) error {
	before, after := b.begin("delete")
	if before != nil {
		return before
	}
	return errors.Join(b.Store.Delete(ctx, keys...), after)
}

func (b *brittle) Flush(ctx context.Context, keys ...string) error {
	before, after := b.begin("flush")
	if err := errors.Join(before, after); err != nil {
		return err
	}
	return b.Store.Flush(ctx, keys...)
}

func (b *brittle) SetStatus(ctx context.Context, key string, value []byte) error {
	before, after := b.begin("status")
	if before != nil {
		return before
	}
	return errors.Join(b.Store.SetStatus(ctx, key, value), after)
}

func (b *brittle) Append(ctx context.Context, log string, head store.Head, payload []byte) (store.Head, error) {
	before, after := b.begin("append")
	if before != nil {
		return store.Head{}, before
	}
	next, err := b.Store.Append(ctx, log, head, payload)
	if err == nil && b.appended != nil {
		b.appended()
	}
	if after != nil {
		return store.Head{}, errors.Join(err, after)
	}
	return next, err
}

func (b *brittle) Log(ctx context.Context, log string, head store.Head) ([]store.Entry, error) {
	before, after := b.begin("log")
	if err := errors.Join(before, after); err != nil {
		return nil, err
	}
	return b.Store.Log(ctx, log, head)
}

func (b *brittle) Size(ctx context.Context, prefix string) (job.Bytes, error) {
	before, after := b.begin("size")
	if err := errors.Join(before, after); err != nil {
		return 0, err
	}
	return b.Store.Size(ctx, prefix)
}

// errDead is what a controller that was killed gets from everything: it can no
// longer have any effect.
var errDead = errors.New("this controller is dead")

// life is the life of one controller.
type life struct {
	once sync.Once
	dead chan struct{}
}

func newLife() *life { return &life{dead: make(chan struct{})} }

func (l *life) kill() { l.once.Do(func() { close(l.dead) }) }

func (l *life) alive() error {
	select {
	case <-l.dead:
		return errDead
	default:
		return nil
	}
}

// mortal is the platform as a controller sees it that may be killed before or
// after any call. Await is no such point: it has no effect.
type mortal struct {
	platform.Platform
	life *life
	// killAt counts calls from 1, each twice: 2n-1 is before the nth call, 2n
	// after it.
	killAt int

	mu    sync.Mutex
	point int
}

func (m *mortal) at(call func() error) error {
	reach := func() error {
		m.mu.Lock()
		m.point++
		if m.point == m.killAt {
			m.life.kill()
		}
		m.mu.Unlock()
		return m.life.alive()
	}
	if err := reach(); err != nil {
		return err
	}
	err := call()
	return errors.Join(err, reach())
}

func (m *mortal) Deploy(ctx context.Context, pkg platform.Package) error {
	return m.at(func() error { return m.Platform.Deploy(ctx, pkg) })
}

func (m *mortal) Invoke(ctx context.Context, call platform.Call) (id platform.Activation, err error) {
	err = m.at(func() (err error) { id, err = m.Platform.Invoke(ctx, call); return err })
	return id, err
}

func (m *mortal) Remove(ctx context.Context, pkg string) error {
	return m.at(func() error { return m.Platform.Remove(ctx, pkg) })
}

func (m *mortal) Cancel(ctx context.Context, id platform.Activation) error {
	if err := m.life.alive(); err != nil {
		return err
	}
	return m.Platform.Cancel(ctx, id)
}

func (m *mortal) Await(ctx context.Context, id platform.Activation) (platform.Outcome, error) {
	if err := m.life.alive(); err != nil {
		return platform.Outcome{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-m.life.dead:
			cancel()
		case <-done:
		}
	}()
	out, err := m.Platform.Await(ctx, id)
	if dead := m.life.alive(); dead != nil {
		return platform.Outcome{}, dead
	}
	return out, err
}
