package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/synergymesh/meshrun/spec"
)

// IsAgent and IsWatchdog tell meshrun's own processes on a host.
func IsAgent(p Process) bool { return p.Is("meshrun", "agent") }

// IsWatchdog tells the parent of everything that meshrun runs.
func IsWatchdog(p Process) bool { return p.Is("meshrun", "watchdog") }

// Data is the data directory of the host's agent.
func (h *Host) Data() string { return filepath.Join(h.Dir, "d") }

// StartAgent starts meshrun on the host.
func (h *Host) StartAgent() error {
	path := filepath.Join(h.Dir, "agent.hcl")
	if err := writeAgentConfig(path, h.Name, h.Data(), h.Addr+":7450", "127.0.0.1:8500"); err != nil {
		return err
	}
	return h.Spawn("agent.log", h.cluster.programs.Meshrun, "agent", "-config", path)
}

// writeAgentConfig writes the configuration file of an agent.
func writeAgentConfig(path, node, data, listen, consul string) error {
	text := fmt.Sprintf("node     = %q\ndata_dir = %q\n\nconsul {\n  address = %q\n}\npeers {\n  listen = %q\n}\n", node, data, consul, listen)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write the configuration of an agent: %w", err)
	}
	return nil
}

// StopAgent ends meshrun on the host the way an operator does: with SIGTERM
// to its watchdog. It waits until it has ended, and all that it ran.
func (h *Host) StopAgent(ctx context.Context) error {
	if n, err := h.Signal(syscall.SIGTERM, IsWatchdog); err != nil || n != 1 {
		return fmt.Errorf("stop agent on %s: %d watchdogs run: %w", h.Name, n, err)
	}
	return wait(ctx, "meshrun on "+h.Name+" has ended", func() error {
		all, err := h.Processes()
		if err != nil {
			return err
		}
		for _, p := range all {
			if IsAgent(p) || IsWatchdog(p) || p.Env["MESHRUN_JOB"] != "" {
				return fmt.Errorf("%d still runs: %s", p.PID, strings.Join(p.Argv, " "))
			}
		}
		return nil
	})
}

// KillAgent kills the agent and nothing else.
func (h *Host) KillAgent() error {
	if n, err := h.Signal(syscall.SIGKILL, IsAgent); err != nil || n == 0 {
		return fmt.Errorf("kill agent on %s: %d run: %w", h.Name, n, err)
	}
	return nil
}

// Meshrun runs a command of meshrun on the host.
func (h *Host) Meshrun(ctx context.Context, args ...string) (Result, error) {
	return h.Run(ctx, []string{"MESHRUN_DATA_DIR=" + h.Data(), "NO_COLOR=1"}, append([]string{h.cluster.programs.Meshrun}, args...)...)
}

// Status is what `meshrun status -json` prints.
type Status struct {
	Agent struct {
		PID         int `json:"pid"`
		WatchdogPID int `json:"watchdog_pid"`
	} `json:"agent"`
	Instances []spec.Instance `json:"instances"`
}

// Status asks the host's agent.
func (h *Host) Status(ctx context.Context) (Status, error) {
	r, err := h.Meshrun(ctx, "status", "-json")
	if err != nil {
		return Status{}, err
	}
	return readStatus(h.Name, r)
}

// readStatus reads what `meshrun status -json` printed on a node.
func readStatus(node string, r Result) (Status, error) {
	var s Status
	if r.Code != 0 {
		return s, fmt.Errorf("status of %s: exit %d: %s", node, r.Code, strings.TrimSpace(r.Stderr))
	}
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		return s, fmt.Errorf("read status of %s: %w", node, err)
	}
	return s, nil
}

// Shards returns the leaders of the instances that run on the host, by what
// meshrun calls them.
func (h *Host) Shards() (map[spec.InstanceID][]Process, error) {
	all, err := h.Processes()
	if err != nil {
		return nil, err
	}
	found := map[spec.InstanceID][]Process{}
	for _, p := range all {
		text := p.Env["MESHRUN_JOB"] + "/" + p.Env["MESHRUN_PROCESS"] + "/" + p.Env["MESHRUN_SHARD"]
		id, err := spec.ParseInstanceID(text)
		if err != nil || p.PID != p.PGID {
			continue
		}
		found[id] = append(found[id], p)
	}
	return found, nil
}

// WaitAgents waits until the agents of all nodes that are up answer.
func (c *Cluster) WaitAgents(ctx context.Context) error {
	for _, h := range c.Nodes {
		if !h.Up() {
			continue
		}
		err := wait(ctx, "the agent of "+h.Name+" answers", func() error {
			s, err := h.Status(ctx)
			if err == nil && s.Agent.PID == 0 {
				err = errors.New("it does not say its pid")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
