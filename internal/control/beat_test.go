// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"disdel/internal/job"
	"disdel/internal/store"
	"disdel/internal/store/mem"
)

// TestAttended: a job has a controller while that says so, as long as it is not
// known to be dead.
func TestAttended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := mem.New()
		r := newRunner(Config{Store: store.WithRetry(s, store.RetryPolicy{}), Process: "me"}, "j")
		alive, dead := func(string) bool { return false }, func(process string) bool { return process == "me" }
		check := func(when string, gone func(string) bool, want bool) {
			t.Helper()
			if got, err := Attended(t.Context(), s, "j", gone, time.Now()); got != want || err != nil {
				t.Errorf("%s: attended is %v, %v; want %v", when, got, err, want)
			}
		}
		check("before it begins", alive, false)
		end := r.beats(t.Context())
		synctest.Wait()
		check("after its first word", alive, true)
		check("when it was killed", dead, false)
		time.Sleep(3*beatLife + time.Second)
		check("while its job waits for long", alive, true)
		end()
		time.Sleep(beatLife - 2*time.Second)
		check("a while after its last word", alive, true)
		time.Sleep(beatEvery)
		check("after a long silence", alive, false)
		r.beats(t.Context())()
		r.unbeat(t.Context())
		check("when it has left", alive, false)
		if err := s.SetStatus(t.Context(), job.Keys{Job: "j"}.Controller(), []byte("{")); err != nil {
			t.Fatal(err)
		}
		check("with another program's word", alive, false)
	})
}

// TestRecollect: what people see of a resumed job begins where its replicas are,
// of which the log need not know.
func TestRecollect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := script{now: time.Now()}
		for _, line := range []string{"job rounds=4 meet=1", "recall", "do", "do", "do"} {
			if err := s.run(line); err != nil {
				t.Fatal(err)
			}
		}
		st := mem.New()
		n := s.state.Numerics
		for replica := range n.Replicas {
			raw, err := json.Marshal(job.ReplicaProgress{Step: n.RoundEnd(1) + 1})
			if err != nil {
				t.Fatal(err)
			}
			if err := st.SetStatus(t.Context(), s.state.keys().Progress(replica), raw); err != nil {
				t.Fatal(err)
			}
		}
		r := newRunner(Config{Store: store.WithRetry(st, store.RetryPolicy{}), Observe: func(State) {}}, "script")
		r.state = s.state
		if got := r.state.Progress().Round; got != 0 {
			t.Fatalf("the log says %d averages", got)
		}
		r.recollect(t.Context())
		if got := r.state.Progress().Round; got != 2 {
			t.Errorf("a resumed job begins after %d averages, want 2", got)
		}
	})
}
