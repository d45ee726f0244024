package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// envWatchdogSocket tells an agent where its watchdog answers.
const envWatchdogSocket = "MESHRUN_WATCHDOG_SOCKET"

// ending says how the agent was asked to end.
type ending struct {
	// shutdown ends the watchdog, too; otherwise it starts a new agent.
	shutdown      bool
	stopInstances bool
}

// end asks the agent to end; the first ask counts.
func (a *agent) end(e ending) {
	select {
	case a.ends <- e:
	default:
	}
}

// underSystemd reports whether the watchdog above this agent is the main
// process of a systemd service, which then brings it back (systemd.exec(5)).
func underSystemd() bool {
	return os.Getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getppid())
}

// underWatchdog reports whether this process was started by the watchdog of
// the data directory.
func underWatchdog(dataDir string) bool {
	return os.Getenv(envWatchdogSocket) == filepath.Join(dataDir, "watchdog", "watchdog.sock")
}

// becomeWatchdog turns this process into the watchdog that runs it.
func becomeWatchdog(dataDir string, args []string) error {
	argv := watchdogCommand(dataDir, args)
	err := syscall.Exec(argv[0], argv, os.Environ())
	return fmt.Errorf("become the watchdog: %w", err)
}

// leaveWait bounds how long the end of what runs here is waited for before the
// node leaves its cluster; what takes longer keeps its locks until the session
// ends by itself.
const leaveWait = 30 * time.Second

// tableTimeout bounds asking the watchdog whether it is shutting down.
const tableTimeout = time.Second

// leaves reports whether this node leaves its cluster with the agent: its
// instances are stopped. An agent that only restarts stays a member.
func (a *agent) leaves() bool {
	if a.cfg.Cluster == nil {
		return false
	}
	if a.ending.shutdown {
		return a.ending.stopInstances
	}
	ctx, cancel := context.WithTimeout(context.Background(), tableTimeout)
	defer cancel()
	table, err := a.client.Table(ctx)
	return err == nil && table.Halting
}

// halt ends the watchdog after the agent's own parts have ended, if that was
// asked for; the watchdog stops the instances first, or leaves them running.
func (a *agent) halt() error {
	if !a.ending.shutdown || a.leaving {
		return nil
	}
	return a.endWatchdog()
}

func (a *agent) endWatchdog() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := a.client.Shutdown(ctx, a.ending.stopInstances); err != nil {
		return fmt.Errorf("end the watchdog: %w", err)
	}
	return nil
}

// depart gives the node's locks back once nothing runs any more, if it leaves
// its cluster. The agent's loops have ended; its store is still open.
func (a *agent) depart(ctx context.Context) error {
	if !a.leaving {
		return nil
	}
	if err := a.waitAllEnded(ctx); err != nil {
		return fmt.Errorf("leave the cluster: %w", err)
	}
	return a.member.Leave()
}

// stopInstances has the watchdog stop what runs, if it does not do so already,
// and waits for that.
func (a *agent) stopInstances() error {
	if a.ending.shutdown {
		if err := a.endWatchdog(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWait)
	defer cancel()
	return a.waitAllEnded(ctx)
}

// waitAllEnded waits until no instance is alive on this node.
func (a *agent) waitAllEnded(ctx context.Context) error {
	wait := loop.Backoff{Min: time.Millisecond, Max: 50 * time.Millisecond}
	for {
		table, err := a.client.Table(ctx)
		if err != nil {
			return fmt.Errorf("ask the watchdog what still runs: %w", err)
		}
		if !slices.ContainsFunc(table.Instances, func(i spec.Instance) bool {
			return i.ID.Job != spec.ReservedJob && i.Phase.Alive()
		}) {
			return nil
		}
		if err := loop.Sleep(ctx, wait.Next()); err != nil {
			return fmt.Errorf("wait for the end of what runs: %w", err)
		}
	}
}
