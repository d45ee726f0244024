package health

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// drainFor is how long is waited for output that a command's children hold.
const drainFor = 200 * time.Millisecond

// execCheck runs a command.
type execCheck struct {
	launch spec.Launch
	host   Host
}

func newExecCheck(t *Target, h *spec.Health, host Host) *execCheck {
	argv := make([]string, len(h.Command))
	for i, arg := range h.Command {
		argv[i] = arg.Text()
	}
	return &execCheck{launch: spec.Launch{ID: t.ID, Argv: argv, Dir: t.Dir, Env: t.Env, User: t.User}, host: host}
}

func (*execCheck) close() {}

func (c *execCheck) check(ctx context.Context) Result {
	path, dir, as, err := c.host.Prepare(&c.launch)
	if err != nil {
		return Result{Err: err}
	}
	out := &ending{}
	cmd := &exec.Cmd{
		Path: path, Args: c.launch.Argv, Dir: dir, Env: c.launch.Env, Stdout: out, Stderr: out, WaitDelay: drainFor,
		// It dies with the agent, and with all its children at its timeout.
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: as},
	}
	// The kernel takes the end of the thread that started it for the parent's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return Result{Err: fmt.Errorf("start %s: %w", path, err)}
	}
	late := awaitGroup(ctx, cmd.Process.Pid)
	err = cmd.Wait()
	r := Result{Output: out.String()}
	var exit *exec.ExitError
	switch {
	case late:
		r.Err = explain(ctx, ctx.Err())
	case errors.As(err, &exit):
		r.Err = errors.New(exit.String())
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		r.Err = fmt.Errorf("wait for %s: %w", path, err)
	}
	return r
}

// awaitGroup waits until a child that leads a group has ended, or kills it once
// ctx is done, and kills what is left of its group. It leaves the child to be
// reaped, so that until it returns nobody else can have its number.
func awaitGroup(ctx context.Context, pid int) (late bool) {
	var mu sync.Mutex // guards over
	over := false
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		if !over {
			_ = syscall.Kill(-pid, syscall.SIGKILL)
			late = true
		}
	})
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	stop()
	mu.Lock()
	defer mu.Unlock()
	over = true
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	return late
}

// ending keeps the last MaxOutput bytes that are written to it.
type ending struct {
	mu   sync.Mutex // guards text
	text []byte
}

func (e *ending) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text = append(e.text, b[max(0, len(b)-MaxOutput):]...)
	if over := len(e.text) - MaxOutput; over > 0 {
		e.text = append(e.text[:0], e.text[over:]...)
	}
	return len(b), nil
}

func (e *ending) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.text)
}
