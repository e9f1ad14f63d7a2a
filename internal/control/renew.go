// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"time"

	"disdel/internal/store"
)

// renewEvery is how often the job's scratch objects are renewed in a store in
// which they expire. Failing a few times does no harm.
const renewEvery = store.ScratchLife / 24

// renew keeps the job's scratch objects from expiring, now and then. An error is
// left to the next time, long before anything expires.
func (r *runner) renew(ctx context.Context) {
	now := time.Now()
	renewer, ok := store.As[store.Renewer](r.cfg.Store)
	if !ok || now.Sub(r.renewed) < renewEvery {
		return
	}
	if renewer.Renew(ctx, r.keys.Scratch()) == nil {
		r.renewed = now
	}
}
