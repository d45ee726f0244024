package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// process is another process, whose end is waited for through a pidfd in the
// runtime's poller: no thread and no poll.
type process struct {
	pidfd *os.File // nil: it has ended already
}

// openProcess opens the process of a number. Close it after use.
func openProcess(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return &process{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pidfd: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// Close lets go of the process.
func (p *process) Close() {
	if p.pidfd != nil {
		p.pidfd.Close()
	}
}

// wait reports whether the process has ended, after at most a time. The error
// is the context's, or says why it cannot be told.
func (p *process) wait(ctx context.Context, atMost time.Duration) (ended bool, err error) {
	if p.pidfd == nil {
		return true, nil
	}
	conn, err := p.pidfd.SyscallConn()
	if err == nil {
		err = p.pidfd.SetReadDeadline(time.Now().Add(atMost))
	}
	if err != nil {
		return false, fmt.Errorf("wait for process: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	err = conn.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
	switch {
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("wait for process: %w", err)
	}
	return true, nil
}
