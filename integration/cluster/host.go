package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// hostNamespaces are what a host has for itself.
const hostNamespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC

// Host is a machine of the cluster. Its methods are for one goroutine at a
// time; different hosts may be used at once.
type Host struct {
	// Name is its host name, and its node's in Consul and meshrun.
	Name string
	// Addr is its only address beside loopback.
	Addr string
	// Dir is its disk: it outlives the host's death.
	Dir string

	cluster *Cluster
	init    *exec.Cmd      // process 1; nil while the host is down
	power   io.WriteCloser // process 1 ends when it is closed
}

// Up reports whether the host has been booted and not been killed since.
func (h *Host) Up() bool { return h.init != nil }

// Boot starts the host with nothing on it but its network.
func (h *Host) Boot() error {
	if h.Up() {
		return fmt.Errorf("boot %s: it is up", h.Name)
	}
	if err := h.start(); err != nil {
		return fmt.Errorf("boot %s: %w", h.Name, err)
	}
	if err := h.cluster.plugIn(h); err != nil {
		return errors.Join(fmt.Errorf("boot %s: %w", h.Name, err), h.Kill())
	}
	return nil
}

// start starts process 1.
func (h *Host) start() error {
	if err := os.MkdirAll(h.Dir, 0o755); err != nil {
		return err
	}
	bootID := filepath.Join(h.Dir, "boot_id")
	if err := os.WriteFile(bootID, []byte(newUUID()+"\n"), 0o644); err != nil {
		return err
	}
	cmd := exec.Command(h.cluster.programs.Host, h.Name, bootID)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: hostNamespaces}
	var said bytes.Buffer
	cmd.Stderr = &said
	power, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	up, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if b, _ := io.ReadAll(io.LimitReader(up, 3)); string(b) != "up\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("process 1: %s", strings.TrimSpace(said.String()))
	}
	h.init, h.power = cmd, power
	return nil
}

// newUUID makes the id of one boot.
func newUUID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Kill takes the host's power away: every process on it is gone when it
// returns. Killing a host that is down does nothing.
func (h *Host) Kill() error {
	if !h.Up() {
		return nil
	}
	init := h.init
	h.init = nil
	defer h.power.Close()
	if err := init.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", h.Name, err)
	}
	// A process 1 is waited for only when all of its namespace have ended.
	if err := init.Wait(); err != nil {
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) {
			return fmt.Errorf("kill %s: %w", h.Name, err)
		}
	}
	return nil
}

// command prepares a program to be run on the host.
func (h *Host) command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	if !h.Up() {
		return nil, fmt.Errorf("run %s on %s: the host is down", argv[0], h.Name)
	}
	enter := []string{"-t", strconv.Itoa(h.init.Process.Pid), "-m", "-u", "-i", "-n", "-p", "--wd=" + h.Dir, "--"}
	return exec.CommandContext(ctx, "nsenter", append(enter, argv...)...), nil
}

// Result is what a program printed, and how it ended.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a program on the host and waits for it. That it exits with another
// code than 0 is no error.
func (h *Host) Run(ctx context.Context, env []string, argv ...string) (Result, error) {
	cmd, err := h.command(ctx, argv...)
	if err != nil {
		return Result{}, err
	}
	r, err := run(ctx, cmd, env...)
	if err != nil {
		return r, fmt.Errorf("on %s: %w", h.Name, err)
	}
	return r, nil
}

// run runs a prepared command with more environment, and waits for it.
func run(ctx context.Context, cmd *exec.Cmd, env ...string) (Result, error) {
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (ctx.Err() != nil || !errors.As(err, &exit)) {
		return Result{}, fmt.Errorf("run %s: %w", strings.Join(cmd.Args, " "), errors.Join(ctx.Err(), err))
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}, nil
}

// Spawn starts a program on the host as a child of process 1, in a session of
// its own, like any service; what it prints is appended to the host's file log.
func (h *Host) Spawn(log string, argv ...string) error {
	out, err := os.OpenFile(filepath.Join(h.Dir, log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start %s on %s: %w", argv[0], h.Name, err)
	}
	defer out.Close()
	// The child is left to process 1 at once: nsenter would stop with it.
	cmd, err := h.command(context.Background(), append([]string{"setsid", "--fork"}, argv...)...)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start %s on %s: %w", argv[0], h.Name, err)
	}
	return nil
}
