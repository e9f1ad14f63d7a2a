// SPDX-License-Identifier: Apache-2.0

package openwhisk

import (
	"net/http"
	"strings"
	"time"

	"disdel/internal/platform"
)

const (
	// minuteSlack is how long after the turn of the minute a call is made: the
	// Date header leaves out the fraction of a second, and controllers' clocks
	// differ.
	minuteSlack = 1500 * time.Millisecond
	// fullPause is for how long no call is made after one too many at once,
	// unhealthyPause after one that found no invoker.
	fullPause      = 5 * time.Second
	unhealthyPause = 5 * time.Second
)

// throttled makes the error of a refusal with status 429 and remembers it: until
// a call can succeed none is sent, because it would count as well.
func (c *Client) throttled(a answer, text string) error {
	t := &platform.Throttle{Until: throttledUntil(a.header, text, time.Now()), Text: text}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.throttle == nil || t.Until.After(c.throttle.Until) {
		c.throttle = t
	}
	return t
}

// throttleNow returns the refusal that still stands, nil when there is none.
func (c *Client) throttleNow() *platform.Throttle {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.throttle != nil && !time.Now().Before(c.throttle.Until) {
		c.throttle = nil
	}
	return c.throttle
}

// throttledUntil is when a call can succeed again. The rate is counted in
// minutes of the server's clock; "Too many requests" alone is the newer
// scheduler's word for too many at once.
func throttledUntil(header http.Header, text string, now time.Time) time.Time {
	if !strings.Contains(text, "in the last minute") {
		return now.Add(fullPause)
	}
	clock := now
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		clock = date
	}
	into := time.Duration(clock.Second())*time.Second + time.Duration(clock.Nanosecond())
	return now.Add(time.Minute - into + minuteSlack)
}
