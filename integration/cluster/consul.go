package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// ConsulConfig is what a Consul agent of ours is told.
type ConsulConfig struct {
	Name    string
	DataDir string
	// Bind is its address for other agents, HTTP where its API is to be
	// found: addresses, or unix:///path, separated by spaces.
	Bind, HTTP string
	// Servers are the addresses of all servers. It is one itself if Server is set.
	Servers []string
	Server  bool
}

// Write writes the configuration file. Everything that decides how fast a lost
// node is noticed is as Consul ships it, except that servers run with the raft
// timing that Consul advises for production.
func (c ConsulConfig) Write(path string) error {
	cfg := map[string]any{
		"node_name":            c.Name,
		"data_dir":             c.DataDir,
		"bind_addr":            c.Bind,
		"client_addr":          "127.0.0.1",
		"addresses":            map[string]any{"http": c.HTTP, "dns": c.Bind, "grpc": c.Bind, "grpc_tls": c.Bind},
		"ports":                map[string]any{"dns": -1, "grpc": -1, "grpc_tls": -1},
		"log_level":            "warn",
		"disable_update_check": true,
		"retry_join":           c.Servers,
		"retry_interval":       "1s",
		"enable_debug":         true, // for Waiting
		// Counts are kept from the first moment to the last.
		"telemetry": map[string]any{"prometheus_retention_time": "24h", "disable_hostname": true},
	}
	if c.Server {
		cfg["server"] = true
		cfg["bootstrap_expect"] = len(c.Servers)
		cfg["performance"] = map[string]any{"raft_multiplier": 1}
		cfg["connect"] = map[string]any{"enabled": true}
		cfg["ui_config"] = map[string]any{"enabled": true}
	}
	text, err := json.MarshalIndent(cfg, "", "  ")
	if err != nil {
		return fmt.Errorf("write Consul's configuration: %w", err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("write Consul's configuration: %w", err)
	}
	return nil
}

// isConsul tells the host's Consul agent.
func isConsul(p Process) bool { return p.Is("consul", "agent") }

// StartConsul starts the host's Consul agent: a server on a server.
func (h *Host) StartConsul() error {
	cfg := ConsulConfig{
		Name: h.Name, DataDir: filepath.Join(h.Dir, "consul"), Bind: h.Addr,
		HTTP: "127.0.0.1 unix://" + h.consulSocket(),
	}
	for _, s := range h.cluster.Servers {
		cfg.Servers = append(cfg.Servers, s.Addr)
		cfg.Server = cfg.Server || s == h
	}
	path := filepath.Join(h.Dir, "consul.json")
	if err := cfg.Write(path); err != nil {
		return err
	}
	return h.Spawn("consul.log", h.cluster.programs.Consul, "agent", "-config-file", path)
}

// KillConsul kills the host's Consul agent.
func (h *Host) KillConsul() error {
	n, err := h.Signal(syscall.SIGKILL, isConsul)
	if err == nil && n == 0 {
		err = fmt.Errorf("kill Consul on %s: none runs", h.Name)
	}
	return err
}

// consulSocket is where the tests reach the host's Consul agent from outside.
func (h *Host) consulSocket() string { return filepath.Join(h.Dir, "consul.sock") }

// Consul returns the API of the host's own Consul agent.
func (h *Host) Consul() *Consul { return newConsul(h.consulSocket()) }

// WaitConsul waits until the host's Consul agent answers, and the servers know
// it and take it for healthy.
func (h *Host) WaitConsul(ctx context.Context) error {
	return wait(ctx, "Consul on "+h.Name+" is a member", func() error {
		var checks []struct{ CheckID, Status string }
		if err := h.Consul().Get(ctx, "/v1/health/node/"+h.Name, &checks); err != nil {
			return err
		}
		for _, check := range checks {
			if check.CheckID == "serfHealth" && check.Status == "passing" {
				return nil
			}
		}
		return errors.New("the servers do not take it for healthy yet")
	})
}

// Leader returns the server that leads Consul now.
func (c *Cluster) Leader(ctx context.Context) (*Host, error) {
	errs := []error{}
	for _, s := range c.Servers {
		if !s.Up() {
			continue
		}
		var addr string
		if err := s.Consul().Get(ctx, "/v1/status/leader", &addr); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, l := range c.Servers {
			if l.Up() && addr == l.Addr+":8300" {
				return l, nil
			}
		}
	}
	return nil, errors.Join(append(errs, errors.New("Consul has no leader"))...)
}

// WaitLeader waits until Consul has a leader that answers.
func (c *Cluster) WaitLeader(ctx context.Context) (*Host, error) {
	var leader *Host
	err := wait(ctx, "Consul has a leader", func() error {
		l, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		leader = l
		_, err = l.Consul().List(ctx, "meshrun/v1/nodes/") // only a leader answers consistently
		return err
	})
	return leader, err
}

// Consul returns the API of a server that has a leader; where the leader
// itself is up, its.
func (c *Cluster) Consul(ctx context.Context) (*Consul, error) {
	l, err := c.Leader(ctx)
	if err != nil {
		return nil, err
	}
	return l.Consul(), nil
}
