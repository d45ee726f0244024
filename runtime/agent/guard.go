package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/watchdog"
	"github.com/synergymesh/meshrun/spec"
)

// guard is the other half of mutual supervision: the watchdog brings the
// agent back, and the agent the watchdog. The successor finds every child of
// its predecessor, the agent included. A watchdog that lives but does not
// answer keeps nothing alive, so it is killed first: there are never two.
type guard struct {
	dataDir string
	args    []string // the agent's, without the program
	client  *watchdog.Client
	logger  hclog.Logger
	// leave is set where something else (systemd) restarts the watchdog.
	leave bool
	// emit records an event; see agent.emit.
	emit func(spec.Event)
	// mute is how long a watchdog that lives may take to its first answer.
	mute time.Duration
}

// The watchdog is asked every askEvery whether it is well, and given up after
// patience answers in a row that did not come within askTimeout: after about
// half a minute. Three in a row, so that an agent that stood still itself
// (a suspended machine) does not take its own absence for the watchdog's.
const (
	askEvery   = 10 * time.Second
	askTimeout = 5 * time.Second
	patience   = 3
	// firstAnswer is as long, for one that has not answered yet.
	firstAnswer = patience * (askEvery + askTimeout)
)

// settleTime is how long a successor that something else started is waited
// for before the agent starts one itself.
const settleTime = 2 * time.Second

// run waits until the watchdog has died, or does not answer any more, and
// replaces it. It returns when the context ends.
func (g *guard) run(ctx context.Context) error {
	for {
		pid, err := g.find(ctx)
		if err != nil {
			return nil // only the context's end makes find give up
		}
		err = g.attend(ctx, pid)
		if errors.Is(err, errUnanswered) {
			err = g.displace(ctx, pid)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			g.logger.Error("look after the watchdog", "pid", pid, "error", err)
			_ = loop.Sleep(ctx, time.Second)
			continue
		}
		g.logger.Warn("the watchdog is gone", "pid", pid)
		if !g.leave {
			if err := g.replace(); err != nil {
				g.logger.Error("start a new watchdog", "error", err)
			}
		}
	}
}

// errUnanswered: the watchdog lives and does not answer.
var errUnanswered = errors.New("the watchdog does not answer")

// attend returns nil when the watchdog has ended, and errUnanswered when it has
// not answered for too long.
func (g *guard) attend(ctx context.Context, pid int) error {
	p, err := openProcess(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	for silent := 0; silent < patience; {
		if ended, err := p.wait(ctx, askEvery); ended || err != nil {
			return err
		}
		ask, cancel := context.WithTimeout(ctx, askTimeout)
		_, err := g.client.Health(ask)
		cancel()
		if silent++; err == nil {
			silent = 0
		}
	}
	return errUnanswered
}

// displace kills the watchdog, if it is that indeed, and waits for its end.
func (g *guard) displace(ctx context.Context, pid int) error {
	owner, err := watchdog.OpenOwner(g.dataDir)
	if err != nil {
		return fmt.Errorf("replace watchdog: %w", err)
	}
	defer owner.Close()
	if owner.PID != pid {
		return fmt.Errorf("replace watchdog: process %d has taken over", owner.PID)
	}
	how := "did not answer any more"
	if owner.Stopped() {
		how = "was stopped (SIGSTOP)"
	}
	p, err := openProcess(pid)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := owner.Kill(); err != nil {
		return fmt.Errorf("replace watchdog: %w", err)
	}
	g.emit(spec.Event{Type: spec.EventWatchdogHung, Severity: spec.Critical, Who: "agent",
		Message: fmt.Sprintf("the watchdog, process %d, %s and was killed; its successor takes over what runs", pid, how)})
	if ended, err := p.wait(ctx, askEvery); !ended {
		return errors.Join(fmt.Errorf("replace watchdog: process %d was killed and does not end", pid), err)
	}
	return nil
}

// find returns the watchdog's pid as soon as one answers, starts one where
// none does for a while, and replaces one that lives and does not for too long.
// It returns the context's error when that ends.
func (g *guard) find(ctx context.Context) (int, error) {
	silentSince, muteSince := time.Now(), time.Now()
	wait := loop.Backoff{Min: 10 * time.Millisecond, Max: time.Second}
	for {
		call, cancel := context.WithTimeout(ctx, time.Second)
		table, err := g.client.Table(call)
		cancel()
		if err == nil {
			return table.PID, nil
		}
		if time.Since(silentSince) > settleTime && !g.leave {
			if err := g.replace(); err != nil {
				g.logger.Error("start a new watchdog", "error", err)
			}
			silentSince = time.Now()
		}
		if time.Since(muteSince) > g.mute {
			if owner, err := watchdog.OpenOwner(g.dataDir); err == nil {
				owner.Close()
				if err := g.displace(ctx, owner.PID); err != nil {
					g.logger.Error("replace a watchdog that has never answered", "pid", owner.PID, "error", err)
				}
			}
			muteSince = time.Now()
		}
		if err := loop.Sleep(ctx, wait.Next()); err != nil {
			return 0, err
		}
	}
}

// replace starts a watchdog with this agent as its agent. If another one holds
// the lock, the new one ends by itself.
func (g *guard) replace() error {
	argv := watchdogCommand(g.dataDir, g.args)
	cmd := exec.Command(argv[0], argv[1:]...)
	log, err := openBounded(filepath.Join(g.dataDir, "watchdog", "watchdog.log"), 1<<20)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = cleanEnv(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start watchdog: %w", err)
	}
	g.logger.Info("started a new watchdog", "pid", cmd.Process.Pid)
	// Reaps the watchdog should it die before this agent; it ends with it.
	go func() { _ = cmd.Wait() }()
	return nil
}

// watchdogCommand is the command line of a watchdog that runs this agent.
func watchdogCommand(dataDir string, args []string) []string {
	self := executable()
	argv := []string{self, "watchdog", "-data-dir", dataDir, "--", self}
	return append(argv, args...)
}

// executable is the path of this program, also after the file was replaced.
func executable() string {
	self, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return strings.TrimSuffix(self, " (deleted)")
}

// openBounded opens a log file for appending, and empties it first if it has
// outgrown its bound.
func openBounded(path string, limit int64) (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(path); err == nil && info.Size() > limit {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// cleanEnv leaves out what the watchdog put into the agent's environment, so
// that a new watchdog isn't taken for an instance.
func cleanEnv(env []string) []string {
	var out []string
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		switch {
		case strings.HasPrefix(name, "MESHRUN_") && name != "MESHRUN_DATA_DIR" && !strings.HasPrefix(name, "MESHRUN_VAR_"):
		case name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" || name == "WATCHDOG_PID":
		default:
			out = append(out, kv)
		}
	}
	return out
}
