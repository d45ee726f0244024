package scenarios

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
)

var (
	stormSeed   = flag.Uint64("cluster.seed", 0, "seed of the storm; 0 takes one from the clock and prints it")
	stormFaults = flag.Int("cluster.faults", 0, "how many faults the storm has; 0 means 15, or 200 with -cluster.long")
)

// fault is one thing that goes wrong on a node, or with a server of Consul.
type fault struct {
	name string
	// server is set if it is for a server.
	server bool
	// short is set if it may not last until others have taken over.
	short bool
	do    func(w *world, h *cluster.Host) error
	// undo ends it; nil if it ends by itself.
	undo func(w *world, h *cluster.Host) error
}

// signalled returns a fault that sends a signal to one of meshrun's processes.
func signalled(sig syscall.Signal, match func(cluster.Process) bool) func(*world, *cluster.Host) error {
	return func(_ *world, h *cluster.Host) error {
		_, err := h.Signal(sig, match)
		return err
	}
}

func thaw(_ *world, h *cluster.Host) error        { return h.Thaw() }
func heal(w *world, _ *cluster.Host) error        { return w.Heal() }
func startConsul(_ *world, h *cluster.Host) error { return h.StartConsul() }
func startAgent(_ *world, h *cluster.Host) error  { return h.StartAgent() }
func kill(_ *world, h *cluster.Host) error        { return h.Kill() }

// stormy are the faults of the storm.
var stormy = []fault{
	{name: "kill the agent", do: signalled(syscall.SIGKILL, cluster.IsAgent)},
	{name: "end the agent", do: signalled(syscall.SIGTERM, cluster.IsAgent)},
	{name: "kill the watchdog", do: signalled(syscall.SIGKILL, cluster.IsWatchdog)},
	{name: "stop the agent for a while", do: signalled(syscall.SIGSTOP, cluster.IsAgent), undo: thaw},
	{name: "stop the watchdog for a while", do: signalled(syscall.SIGSTOP, cluster.IsWatchdog), undo: thaw, short: true},
	{name: "freeze the machine", do: func(_ *world, h *cluster.Host) error { return h.Freeze() }, undo: thaw, short: true},
	{name: "kill agent and watchdog at once", do: crash, undo: startAgent},
	{name: "leave and come back", do: func(w *world, h *cluster.Host) error { return h.StopAgent(w.soon()) }, undo: startAgent},
	{name: "kill the node", do: kill, undo: func(w *world, h *cluster.Host) error {
		return errors.Join(h.Boot(), h.StartConsul(), h.WaitConsul(w.soon()), h.StartAgent())
	}},
	{name: "kill the node's Consul", do: func(_ *world, h *cluster.Host) error { return h.KillConsul() }, undo: startConsul},
	{name: "cut off from everybody", do: func(w *world, h *cluster.Host) error { return w.Isolate(h) }, undo: heal},
	{name: "cut off from Consul", do: func(w *world, h *cluster.Host) error { return w.Cut(h, w.Servers...) }, undo: heal},
	{name: "is not heard", do: func(w *world, h *cluster.Host) error { return w.CutOneWay(h, w.Hosts()...) }, undo: heal},
	{name: "hears nothing of Consul", do: func(w *world, h *cluster.Host) error {
		for _, s := range w.Servers {
			if err := w.CutOneWay(s, h); err != nil {
				return err
			}
		}
		return nil
	}, undo: heal},
	{name: "lose packets", do: func(w *world, h *cluster.Host) error { return w.Slow(h) }, undo: heal},
	{name: "drain", do: func(w *world, h *cluster.Host) error { return w.drain(h) }, undo: func(w *world, h *cluster.Host) error { return w.drain(h, "-off") }},
	{name: "kill Consul", server: true, do: func(_ *world, h *cluster.Host) error { return h.KillConsul() }, undo: startConsul},
	{name: "kill the server", server: true, do: kill, undo: func(w *world, h *cluster.Host) error {
		return errors.Join(h.Boot(), h.StartConsul())
	}},
}

// crash kills watchdog and agent together, so that neither brings the other
// one back.
func crash(w *world, h *cluster.Host) error {
	both := func(p cluster.Process) bool { return cluster.IsAgent(p) || cluster.IsWatchdog(p) }
	return errors.Join(signalled(syscall.SIGSTOP, both)(w, h), signalled(syscall.SIGKILL, both)(w, h))
}

// drain orders a drain, as often as it takes: the cluster may just have no
// primary, and the order has to be taken before the storm goes on.
func (w *world) drain(h *cluster.Host, args ...string) error {
	var last error
	for end := time.Now().Add(lostBound); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		r, err := w.Nodes[0].Meshrun(w.soon(), append(append([]string{"drain"}, args...), h.Name)...)
		if err == nil && r.Code == 0 {
			return nil
		}
		last = fmt.Errorf("drain %v %s: exit %d: %s: %w", args, h.Name, r.Code, r.Stderr, err)
	}
	return last
}

// TestStorm lets one thing after the other go wrong, and checks that there were
// never two of an exclusive shard, and that in the end all is well.
func TestStorm(t *testing.T) {
	faults, longest := *stormFaults, 5*time.Second
	if *long {
		longest = 20 * time.Second
	}
	if faults == 0 {
		faults = 15
		if *long {
			faults = 200
		}
	}
	seed := *stormSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -cluster.seed=%d -cluster.faults=%d", seed, faults)
	rnd := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, 5, 32, 10)
	between := func(least, most time.Duration) time.Duration {
		return least + time.Duration(rnd.Int64N(int64(most-least)))
	}
	for i := 1; i <= faults; i++ {
		f := stormy[rnd.IntN(len(stormy))]
		hosts := w.Nodes
		if f.server {
			hosts = w.Servers
		}
		h := hosts[rnd.IntN(len(hosts))]
		hold := between(100*time.Millisecond, 3*time.Second)
		if rnd.IntN(4) == 0 && !f.short {
			hold = between(3*time.Second, longest)
		}
		t.Logf("%3d. %s: %s, for %v", i, h.Name, f.name, round(hold))
		must(t, f.do(w, h))
		time.Sleep(hold)
		if f.undo != nil {
			must(t, f.undo(w, h))
		}
		time.Sleep(between(0, 2*time.Second))
		if i%10 == 0 {
			t.Logf("     all is well after %v", round(w.settle()))
			w.judge()
		}
	}
	w.verdict()
}

// judge fails the test at once if an exclusive shard was two: what comes later
// explains nothing.
func (w *world) judge() {
	w.t.Helper()
	if found := w.book().Overlaps(); len(found) > 0 {
		w.t.Fatalf("never two of an exclusive shard: %v", found)
	}
}
