package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/runtime/api"
)

// startedAgent is an agent that this process has started; it outlives it.
type startedAgent struct {
	exited chan error // gets the end of the process, once
	log    string     // the file that it writes to
}

// Bounds of starting an agent.
const (
	readyLimit = 30 * time.Second
	// rivalLimit is how long another agent is waited for after this one has
	// ended: its watchdog may be just bringing it back.
	rivalLimit = 3 * time.Second
	maxUpLog   = 1 << 20
	logTail    = 4 << 10
)

// startAgent starts an agent on the data directory, in a session of its own,
// so that neither Ctrl-C nor the end of the terminal reaches it.
func startAgent(_ context.Context, dataDir string) (*startedAgent, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start agent: find this program: %w", err)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("start agent: create data directory: %w: choose another one with -data-dir", err)
	}
	path := filepath.Join(dataDir, "up.log")
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > maxUpLog {
		flags |= os.O_TRUNC
	}
	log, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	defer log.Close()
	// Only warnings: nobody rotates this file, and the agent's own log has all.
	cmd := exec.Command(self, "agent", "-data-dir", dataDir, "-log-level", "warn", "-"+fromUpFlag)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start agent: %w", err)
	}
	s := &startedAgent{exited: make(chan error, 1), log: path}
	go func() { s.exited <- cmd.Wait() }() // reaps it; ends with it, or with this process
	return s, nil
}

// ready waits until the agent is able to work.
func (s *startedAgent) ready(ctx context.Context, client *api.Client) (api.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	var ended error
	var giveUp <-chan time.Time
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		info, err := client.Ready(ctx)
		if err == nil {
			return info, nil
		}
		if !passing(err) && ctx.Err() == nil {
			return info, err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return info, fmt.Errorf("start agent: it was not ready after %s; it said:\n%s", ago(readyLimit), s.said())
			}
			return info, ctx.Err()
		case ended = <-s.exited:
			giveUp = time.After(rivalLimit)
		case <-giveUp:
			return info, fmt.Errorf("start agent: it ended at once (%s); it said:\n%s", exitText(ended), s.said())
		case <-time.After(pause):
		}
	}
}

func exitText(err error) string {
	if err == nil {
		return "exit 0"
	}
	return err.Error()
}

// said returns the end of what the agent wrote.
func (s *startedAgent) said() string {
	f, err := os.Open(s.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > logTail {
		_, _ = f.Seek(-logTail, io.SeekEnd)
	}
	text, _ := io.ReadAll(io.LimitReader(f, logTail))
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
}

// startedByUp reports whether an agent was started by an `up`: its command
// line says so.
func startedByUp(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && slices.ContainsFunc(bytes.Split(text, []byte{0}), func(arg []byte) bool {
		return string(arg) == "-"+fromUpFlag
	})
}

// endLimit bounds how long agent and watchdog may take to end.
const endLimit = 30 * time.Second

// waitProcesses waits until the processes have ended.
func waitProcesses(ctx context.Context, pids ...int) error {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	for _, pid := range pids {
		if pid <= 0 {
			continue
		}
		if err := waitProcess(ctx, pid); err != nil {
			return err
		}
	}
	return nil
}

func waitProcess(ctx context.Context, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("wait for pid %d: %w", pid, err)
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 100) // the context is looked at that often, in milliseconds
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for pid %d: %w", pid, err)
		}
		if n > 0 {
			return nil
		}
	}
	return fmt.Errorf("wait for pid %d to end: %w", pid, context.Cause(ctx))
}
