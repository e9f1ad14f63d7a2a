// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"disdel/internal/job"
	"disdel/internal/store"
)

const (
	// beatEvery is how often a controller says that it is there, beatTimeout bounds
	// that.
	beatEvery   = 5 * time.Second
	beatTimeout = 2 * time.Second
	// beatLife is how old the last such word of a controller is that still counts:
	// more than the end of a job takes, during which it says nothing.
	beatLife = time.Minute
)

// beat is what a controller says of itself.
type beat struct {
	At      time.Time `json:"at"`
	Process string    `json:"process"`
}

// beats says now and then that this controller is there, until end is called, which
// waits for the last word. Nothing depends on it: it is for who looks at the job. It
// does not wait for what the job does, which may be longer than a word counts.
func (r *runner) beats(ctx context.Context) (end func()) {
	if r.cfg.Process == "" {
		return func() {}
	}
	r.beaten = true
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(beatEvery)
		defer ticker.Stop()
		for {
			r.beat(ctx)
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// beat says once that this controller is there. It may be called from any goroutine.
func (r *runner) beat(ctx context.Context) {
	raw, err := json.Marshal(beat{time.Now().UTC(), r.cfg.Process})
	if err != nil {
		panic("BUG: a time and a text cannot be encoded: " + err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, beatTimeout)
	defer cancel()
	_ = r.cfg.Store.SetStatus(ctx, r.keys.Controller(), raw) // the next one may succeed
}

// unbeat says that nobody controls the job any more.
func (r *runner) unbeat(ctx context.Context) {
	if !r.beaten {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beatTimeout)
	defer cancel()
	_ = r.cfg.Store.SetStatus(ctx, r.keys.Controller(), nil) // else it grows old
}

// Attended reports whether a job that has not ended has a controller. dead reports
// whether a process that Config.Process named is known to have ended; of one of
// which it knows nothing the last word counts for a minute.
func Attended(ctx context.Context, s store.Store, id job.ID, dead func(process string) bool, now time.Time) (bool, error) {
	raw, err := s.Status(ctx, job.Keys{Job: id}.Controller())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("job %s: %w", id, err)
	}
	var b beat
	if json.Unmarshal(raw, &b) != nil {
		return false, nil
	}
	return !dead(b.Process) && now.Sub(b.At) < beatLife, nil
}
