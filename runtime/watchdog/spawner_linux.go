package watchdog

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
)

// spawner is a thread that forks. It has a descriptor table of its own, with
// the few descriptors that were open when it began: fork copies its thread's
// table and exec closes what is in it, so that with three descriptors for each
// of a thousand instances, a start would take more than twice as long (see
// close_range(2) and unshare(2)).
//
// What is opened on the thread is private to it, and what others have opened
// since it began is missing there. The runtime's own descriptors, which it may
// use on any thread, were open before.
type spawner struct {
	work chan func()
	done chan struct{}
	null int // /dev/null, open on the thread only: the children's stdin
	// stuck is a cgroup that the thread could not leave yet; only the thread uses it.
	stuck *cgroup.Group
}

// newSpawner starts the thread.
func newSpawner() (*spawner, error) {
	s := &spawner{work: make(chan func(), startBatch+1), done: make(chan struct{})}
	began := make(chan error, 1)
	go func() {
		defer close(s.done)
		// Never unlocked: the thread ends with the goroutine.
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FILES)
		if err != nil {
			err = fmt.Errorf("unshare the descriptors of the forking thread: %w", err)
		} else if s.null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			err = fmt.Errorf("open /dev/null: %w", err)
		}
		began <- err
		if err != nil {
			return
		}
		for f := range s.work {
			f()
		}
	}()
	if err := <-began; err != nil {
		return nil, err
	}
	return s, nil
}

// post makes the thread run f, after what was posted before. f must use raw
// descriptors only, and close what it opens.
func (s *spawner) post(f func()) { s.work <- f }

// close ends the thread.
func (s *spawner) close() {
	close(s.work)
	<-s.done
}
