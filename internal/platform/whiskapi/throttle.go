// SPDX-License-Identifier: Apache-2.0

package whiskapi

import (
	"net/http"
	"sync"
	"time"
)

// throttle counts the calls of one namespace.
type throttle struct {
	perMinute, concurrent int

	mu       sync.Mutex
	minute   int64 // of the wall clock
	count    int   // of calls in it, refused ones included
	inFlight int
}

// enter counts a call and takes a slot for it, which leave gives back. First
// comes the rate, whose count goes up whatever follows, then the concurrency.
func (t *throttle) enter(now time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if minute := now.Unix() / 60; minute != t.minute {
		t.minute, t.count = minute, 0
	}
	t.count++
	if t.count > t.perMinute {
		return failure(http.StatusTooManyRequests, "Too many requests in the last minute (count: %d, allowed: %d).", t.count, t.perMinute)
	}
	if t.inFlight >= t.concurrent {
		return failure(http.StatusTooManyRequests, "Too many concurrent requests in flight (count: %d, allowed: %d).", t.inFlight, t.concurrent)
	}
	t.inFlight++
	return nil
}

func (t *throttle) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.inFlight--
}
