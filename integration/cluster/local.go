package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// LocalSize is how many Consul servers, and as many agents, a Local has.
const LocalSize = 3

// Local is a cluster on one machine without any rights: three Consul servers
// and three agents, which differ in their loopback addresses. It is for looking
// at; what breaks a cluster needs hosts.
type Local struct {
	// Dir holds everything of it. What a killed run has left there is ended
	// by Start.
	Dir string
	// Net are the first three numbers of its addresses: "127.0.0".
	Net      string
	Programs Programs

	servers []*exec.Cmd
	agents  []string // data directories
}

// Addr is the address of the n-th server and agent, from 1.
func (l *Local) Addr(n int) string { return fmt.Sprintf("%s.%d", l.Net, 10+n) }

// Consul returns the API of the first server.
func (l *Local) Consul() *Consul { return ConsulAt(l.Addr(1) + ":8500") }

// Data is the data directory of the n-th agent, from 1.
func (l *Local) Data(n int) string { return filepath.Join(l.Dir, fmt.Sprintf("n%d", n), "d") }

// StartConsul starts the servers and waits until they have a leader.
func (l *Local) StartConsul(ctx context.Context) error {
	if err := l.clearAway(); err != nil {
		return err
	}
	var servers []string
	for n := range LocalSize {
		servers = append(servers, l.Addr(n+1))
	}
	for i, addr := range servers {
		probe, err := net.Listen("tcp", addr+":8500")
		if err != nil {
			return fmt.Errorf("start Consul: %w: another Consul, or another cluster of ours, has that address: end it first", err)
		}
		probe.Close()
		dir := filepath.Join(l.Dir, fmt.Sprintf("c%d", i+1))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("start Consul: %w", err)
		}
		cfg := ConsulConfig{
			Name: fmt.Sprintf("c%d", i+1), DataDir: filepath.Join(dir, "data"), Bind: addr, HTTP: addr,
			Servers: servers, Server: true,
		}
		path := filepath.Join(dir, "consul.json")
		if err := cfg.Write(path); err != nil {
			return err
		}
		cmd, err := l.spawn(filepath.Join(dir, "consul.log"), l.Programs.Consul, "agent", "-config-file", path, "-pid-file", filepath.Join(dir, "pid"))
		if err != nil {
			return err
		}
		l.servers = append(l.servers, cmd)
	}
	return wait(ctx, "Consul has a leader", func() error {
		for n := range LocalSize {
			if _, err := ConsulAt(l.Addr(n+1)+":8500").List(ctx, "meshrun/v1/nodes/"); err != nil {
				return err
			}
		}
		return nil
	})
}

// StartAgents starts the agents and waits until they answer.
func (l *Local) StartAgents(ctx context.Context) error {
	for n := 1; n <= LocalSize; n++ {
		name, data := fmt.Sprintf("n%d", n), l.Data(n)
		dir := filepath.Dir(data)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("start agents: %w", err)
		}
		path := filepath.Join(dir, "agent.hcl")
		if err := writeAgentConfig(path, name, data, l.Addr(n)+":7450", l.Addr(n)+":8500"); err != nil {
			return err
		}
		l.agents = append(l.agents, data)
		cmd, err := l.spawn(filepath.Join(dir, "agent.log"), l.Programs.Meshrun, "agent", "-config", path)
		if err != nil {
			return err
		}
		go func() { _ = cmd.Wait() }() // ends with the agent's watchdog, which Stop ends
	}
	return wait(ctx, "the agents answer", func() error {
		for n := 1; n <= LocalSize; n++ {
			if _, err := l.Status(ctx, n); err != nil {
				return err
			}
		}
		return nil
	})
}

// Meshrun runs a command of meshrun against the n-th agent, from 1.
func (l *Local) Meshrun(ctx context.Context, n int, args ...string) (Result, error) {
	return run(ctx, exec.CommandContext(ctx, l.Programs.Meshrun, args...), "MESHRUN_DATA_DIR="+l.Data(n), "NO_COLOR=1")
}

// Status asks the n-th agent, from 1.
func (l *Local) Status(ctx context.Context, n int) (Status, error) {
	r, err := l.Meshrun(ctx, n, "status", "-json")
	if err != nil {
		return Status{}, err
	}
	return readStatus(fmt.Sprintf("n%d", n), r)
}

// Apply applies job files through the first agent, and waits until all of
// them runs.
func (l *Local) Apply(ctx context.Context, paths ...string) error {
	r, err := l.Meshrun(ctx, 1, append([]string{"apply", "-yes", "-wait"}, paths...)...)
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return fmt.Errorf("apply %s: exit %d\n%s%s", strings.Join(paths, " "), r.Code, r.Stdout, r.Stderr)
	}
	return nil
}

// Stop ends the agents, all that they run, and then Consul. It is safe on one
// that was started in part.
func (l *Local) Stop() error {
	errs := []error{l.stopAgents()}
	for _, cmd := range l.servers {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range l.servers {
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
	}
	l.servers = nil
	return errors.Join(errs...)
}

// stopAgents ends all agents at once, by their watchdogs.
func (l *Local) stopAgents() error {
	pids := map[string]int{}
	for _, data := range l.agents {
		if pid := livePID(filepath.Join(data, "watchdog", "watchdog.lock"), data); pid != 0 {
			pids[data] = pid
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return wait(ctx, "the agents have ended", func() error {
		for data, pid := range pids {
			if livePID(filepath.Join(data, "watchdog", "watchdog.lock"), data) == pid {
				return fmt.Errorf("watchdog %d of %s lives", pid, data)
			}
		}
		return nil
	})
}

// clearAway ends what a run that was killed has left, and removes its files.
func (l *Local) clearAway() error {
	l.agents = nil
	for n := 1; n <= LocalSize; n++ {
		l.agents = append(l.agents, l.Data(n))
	}
	if err := l.stopAgents(); err != nil {
		return err
	}
	l.agents = nil
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for n := 1; n <= LocalSize; n++ {
		dir := filepath.Join(l.Dir, fmt.Sprintf("c%d", n))
		if pid := livePID(filepath.Join(dir, "pid"), dir); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			if err := wait(ctx, "the old Consul has ended", func() error {
				if livePID(filepath.Join(dir, "pid"), dir) != 0 {
					return fmt.Errorf("%d lives", pid)
				}
				return nil
			}); err != nil {
				return err
			}
		}
	}
	if err := os.RemoveAll(l.Dir); err != nil {
		return fmt.Errorf("remove what an earlier run has left: %w", err)
	}
	return nil
}

// livePID reads a pid from a file, and returns it if the process lives and has
// the text in its command line; else 0.
func livePID(path, text string) int {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	if cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err != nil || !strings.Contains(string(cmdline), text) {
		return 0
	}
	return pid
}

// spawn starts a program of its own group, so that a Ctrl-C is ours alone.
func (l *Local) spawn(log string, argv ...string) (*exec.Cmd, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return cmd, nil
}
