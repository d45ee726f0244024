package watchdog

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/watchdog/cgroup"
)

// spawner is a thread that forks. It has a table of file descriptors of its
// own, with the few that were open when it began: fork copies its thread's
// table and exec closes what is in it, so that with three descriptors for each
// of a thousand instances in the table, a start would take more than twice as
// long (close_range(2) and unshare(2) tell of the same).
//
// What is opened on the thread is nobody else's, and what others have opened
// since it began is not there. The runtime's own descriptors, which it may use
// on any thread, are: they were open before.
type spawner struct {
	work chan func()
	done chan struct{}
	null int // /dev/null, open on the thread only: what its children read
	// stuck is a group that the thread could not leave yet; the thread's alone.
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

// post has f run on the thread, after what was posted before. F must use raw
// descriptors only, and close what it opens.
func (s *spawner) post(f func()) { s.work <- f }

// close ends the thread.
func (s *spawner) close() {
	close(s.work)
	<-s.done
}
