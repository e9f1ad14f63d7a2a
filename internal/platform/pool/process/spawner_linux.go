// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// spawner runs functions on one operating system thread that lives as long as
// the driver. Children are forked there for two reasons. The signal that a
// child gets when its parent dies is really sent when the thread dies that
// forked it, and Go ends threads as it likes. And cgroup v1 puts a child where
// the forking thread is, so that this thread is moved, not the whole process.
type spawner struct {
	work  chan func() error
	reply chan error
	mu    sync.Mutex // one caller at a time
	done  chan struct{}
	// stuck says that the thread could not be moved back to where it belongs: it
	// must fork no more, and end rather than serve other goroutines. Guarded by
	// mu while there are callers.
	stuck bool
}

var errStuck = errors.New("the thread that starts processes could not leave a memory group: open the platform again")

func newSpawner() *spawner {
	s := &spawner{work: make(chan func() error), reply: make(chan error), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread()
		for work := range s.work {
			s.reply <- work()
		}
		if !s.stuck {
			runtime.UnlockOSThread()
		} // else the thread ends with the goroutine
	}()
	return s
}

// do runs work on the thread.
func (s *spawner) do(work func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck {
		return errStuck
	}
	s.work <- work
	return <-s.reply
}

// close ends the thread's service. No call of do may follow.
func (s *spawner) close() {
	close(s.work)
	<-s.done
}

// hugePages guards this process's own setting.
var hugePages sync.Mutex

// withoutHugePages runs fork such that the child never gets transparent huge
// pages. Where a system gives them to everybody, a touched page can cost 2 MB,
// and whether it does depends on chance: no prediction of memory would hold. The
// setting can only be inherited, so this process has it meanwhile.
func withoutHugePages(fork func() error) error {
	hugePages.Lock()
	defer hugePages.Unlock()
	off, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0)
	if err != nil || off != 0 { // a kernel without them, or nothing to do
		return fork()
	}
	if err := unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	err = fork()
	// Nothing but speed depends on it.
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	return err
}
