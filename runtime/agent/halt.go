package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
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

// halt ends the watchdog after the agent's own parts have ended, if that was
// asked for; the watchdog stops the instances first, or leaves them running.
func (a *agent) halt() error {
	if !a.ending.shutdown {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := a.client.Shutdown(ctx, a.ending.stopInstances); err != nil {
		return fmt.Errorf("end the watchdog: %w", err)
	}
	return nil
}
