// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"disdel/internal/platform/pool"
)

// TestPullOnce: one pull serves all who want the image, and who gives up spoils
// it for nobody else.
func TestPullOnce(t *testing.T) {
	broken := errors.New("no such manifest")
	for name, c := range map[string]struct {
		err   error
		first error // of the one who gives up while it pulls
		rest  error
		pulls int
	}{
		"works":  {nil, context.Canceled, nil, 2},
		"broken": {broken, context.Canceled, broken, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := &Driver{pulling: map[string]*pull{}}
			answer := make(chan error)
			pulls := 0
			do := func(ctx context.Context, _ string) error {
				pulls++
				select {
				case err := <-answer:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var wait sync.WaitGroup
			wait.Go(func() {
				if err := d.pullOnce(ctx, "i", do); !errors.Is(err, c.first) || errors.Is(err, pool.ErrImage) {
					t.Errorf("%s: the one who gave up got %v", name, err)
				}
			})
			synctest.Wait()
			for range 3 {
				wait.Go(func() {
					err := d.pullOnce(t.Context(), "i", do)
					if !errors.Is(err, c.rest) || (err != nil) != errors.Is(err, pool.ErrImage) {
						t.Errorf("%s: one who waited got %v", name, err)
					}
				})
			}
			waiting, leave := context.WithCancel(t.Context())
			wait.Go(func() {
				if err := d.pullOnce(waiting, "i", do); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: one who left got %v", name, err)
				}
			})
			synctest.Wait()
			leave()
			cancel()
			synctest.Wait() // another one pulls now
			answer <- c.err
			wait.Wait()
			if pulls != c.pulls || len(d.pulling) != 0 {
				t.Errorf("%s: %d pulls, want %d; %d under way", name, pulls, c.pulls, len(d.pulling))
			}
		})
	}
}
