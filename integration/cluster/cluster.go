package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Programs are the binaries that a cluster is made of.
type Programs struct {
	Host, Consul, Meshrun string
}

// Cluster is some hosts with a network between them: servers, which run a
// Consul server each, and nodes, which run a Consul client and meshrun.
type Cluster struct {
	// Dir holds the disks of all hosts.
	Dir     string
	Servers []*Host
	Nodes   []*Host

	programs Programs
	lock     *os.File // tells that the directory is in use
	bridge   *Host
	faults   faults
	made     int // hosts so far; their addresses are numbered
}

// dirPrefix begins the names of all clusters' directories.
const dirPrefix = "mrc-"

// New makes a cluster of hosts that are all down. It removes what earlier
// clusters have left.
func New(programs Programs, servers, nodes int) (*Cluster, error) {
	if err := sweep(); err != nil {
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	dir, err := os.MkdirTemp("", dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	c := &Cluster{Dir: dir, programs: programs, faults: faults{cut: map[way]bool{}, slow: map[way]bool{}}}
	if c.lock, err = own(dir); err != nil {
		return nil, fmt.Errorf("make cluster: %w", errors.Join(err, os.RemoveAll(dir)))
	}
	c.bridge = &Host{Name: "bridge", Dir: filepath.Join(dir, "bridge"), cluster: c}
	if err := c.startSwitch(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	for range servers {
		c.Servers = append(c.Servers, c.newHost(fmt.Sprintf("c%d", len(c.Servers)+1)))
	}
	for range nodes {
		c.AddNode()
	}
	return c, nil
}

// AddNode makes one more node, which is down.
func (c *Cluster) AddNode() *Host {
	h := c.newHost(fmt.Sprintf("n%d", len(c.Nodes)+1))
	c.Nodes = append(c.Nodes, h)
	return h
}

func (c *Cluster) newHost(name string) *Host {
	c.made++
	// The net that is meant for tests of networks (RFC 2544).
	return &Host{Name: name, Addr: fmt.Sprintf("198.18.0.%d", c.made), Dir: filepath.Join(c.Dir, name), cluster: c}
}

// Hosts returns all hosts: servers, then nodes.
func (c *Cluster) Hosts() []*Host { return slices.Concat(c.Servers, c.Nodes) }

// Host returns the host of that name, or nil.
func (c *Cluster) Host(name string) *Host {
	for _, h := range c.Hosts() {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Start boots all servers, waits until they have a leader, and then boots all
// nodes, each with its Consul client.
func (c *Cluster) Start(ctx context.Context) error {
	for _, h := range c.Servers {
		if err := errors.Join(h.Boot(), h.StartConsul()); err != nil {
			return err
		}
	}
	if _, err := c.WaitLeader(ctx); err != nil {
		return err
	}
	for _, h := range c.Nodes {
		if err := errors.Join(h.Boot(), h.StartConsul()); err != nil {
			return err
		}
	}
	for _, h := range c.Nodes {
		if err := h.WaitConsul(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends all hosts and removes their disks.
func (c *Cluster) Close() error {
	errs := []error{}
	for _, h := range append(c.Hosts(), c.bridge) {
		errs = append(errs, h.Kill())
	}
	errs = append(errs, os.RemoveAll(c.Dir), c.lock.Close())
	return errors.Join(errs...)
}

// own marks a new directory as this process's, for as long as it lives.
func own(dir string) (*os.File, error) {
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path+"~", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// Nobody sees the file before it is locked.
	if err := errors.Join(lock(f), os.Rename(path+"~", path)); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func lock(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }

// sweep removes the directories of clusters whose process has died.
func sweep() error {
	locks, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*", "lock"))
	if err != nil {
		return err
	}
	for _, path := range locks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue // just removed
		}
		if lock(f) == nil {
			err = os.RemoveAll(filepath.Dir(path))
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("remove what an earlier run has left: %w", err)
		}
	}
	return nil
}

// wait polls until the condition holds or the context ends, and says with its
// last word what was wrong.
func wait(ctx context.Context, what string, condition func() error) error {
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until %s: %w: %w", what, ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
