// Rolls rolls real services from one version to another while clients use
// them, and prints how many requests failed: redis and a Python service of
// three instances each, and nginx, whose configuration changes too.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	binary := flag.String("meshrun", "bin/meshrun", "the program to test")
	flag.Parse()
	if err := run(*binary); err != nil {
		fmt.Fprintln(os.Stderr, "rolls:", err)
		os.Exit(1)
	}
}

func run(binary string) (err error) {
	binary, err = filepath.Abs(binary)
	if err != nil {
		return err
	}
	for _, program := range []string{binary, "redis-server", "nginx", "python3", "wrk"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("find %s: %w: apt-get install redis-server nginx-light python3 wrk", program, err)
		}
	}
	dir, err := os.MkdirTemp("", "meshrun-rolls-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	n, err := start(binary, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	fmt.Printf("%-44s %10s %14s %12s %9s\n", "service", "requests", "first failed", "all failed", "took")
	for _, roll := range []func(*node) (string, tally, time.Duration, error){rollRedis, rollPython, rollNginx, reloadNginx} {
		what, t, took, err := roll(n)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		fmt.Printf("%-44s %10d %14d %12d %9s\n", what, t.requests, t.first, t.failed, took.Round(100*time.Millisecond))
	}
	return nil
}

// node is a meshrun under test.
type node struct {
	binary, dir string
	cmd         *exec.Cmd
}

func start(binary, dir string) (*node, error) {
	n := &node{binary: binary, dir: dir}
	log, err := os.Create(filepath.Join(dir, "agent.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	n.cmd = exec.Command(binary, "watchdog", "-data-dir", filepath.Join(dir, "data"), "--", binary, "agent", "-data-dir", filepath.Join(dir, "data"))
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = n.meshrun("status"); err == nil {
			return n, nil
		}
		if time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("start an agent: %w", err), n.stop())
		}
	}
}

// stop ends the node and everything that it runs.
func (n *node) stop() error {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	ended := make(chan error, 1)
	go func() { ended <- n.cmd.Wait() }()
	select {
	case <-ended:
		return nil
	case <-time.After(30 * time.Second):
		_ = n.cmd.Process.Kill()
		<-ended
		return errors.New("the node did not end within 30 s of SIGTERM")
	}
}

func (n *node) meshrun(args ...string) (string, error) {
	cmd := exec.Command(n.binary, args...)
	cmd.Env = append(os.Environ(), "MESHRUN_DATA_DIR="+filepath.Join(n.dir, "data"), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("meshrun %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// roll applies a file, and then, under load, the same with another revision.
// It returns what the clients saw, and how long the rollout took.
func (n *node) roll(name, text string, load func(stop <-chan struct{}) (tally, error)) (tally, time.Duration, error) {
	path := filepath.Join(n.dir, name+".hcl")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return tally{}, 0, err
	}
	if _, err := n.meshrun("apply", "-yes", "-wait", path); err != nil {
		return tally{}, 0, err
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	var t tally
	go func() {
		var err error
		t, err = load(stop)
		done <- err
	}()
	time.Sleep(time.Second) // the load is steady
	began := time.Now()
	_, err := n.meshrun("apply", "-yes", "-wait", "-var", "revision=2", path)
	took := time.Since(began)
	time.Sleep(time.Second)
	close(stop)
	return t, took, errors.Join(err, <-done)
}
