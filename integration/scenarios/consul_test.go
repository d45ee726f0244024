package scenarios

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
)

// What a cluster test says of meshrun rests on these: that a fault of the rig
// is the fault that it is named after, as Consul alone sees it.

// session makes a session on a node, and returns a check that it is gone.
func session(t *testing.T, c *cluster.Cluster, h *cluster.Host) (gone func() error) {
	t.Helper()
	id, err := h.Consul().NewSession(t.Context(), 10*time.Second, 5*time.Second)
	must(t, err)
	return func() error {
		api, err := c.Consul(t.Context())
		if err != nil {
			return err
		}
		var list []cluster.Session
		if err := api.Get(t.Context(), "/v1/session/info/"+id, &list); err != nil {
			return err
		}
		if len(list) > 0 {
			return errors.New("the session is still there")
		}
		return nil
	}
}

// reaches reports whether the host gets an answer of the other one.
func reaches(t *testing.T, from, to *cluster.Host) bool {
	t.Helper()
	r, err := from.Run(t.Context(), nil, "bash", "-c", fmt.Sprintf("exec timeout 0.5 bash -c '</dev/tcp/%s/8301'", to.Addr))
	must(t, err)
	return r.Code == 0
}

func TestTheRigsFaultsAreWhatTheyAreCalled(t *testing.T) {
	c := newCluster(t, 3, 3)
	a, b, d := c.Nodes[0], c.Nodes[1], c.Nodes[2]

	if !reaches(t, a, b) || !reaches(t, b, a) {
		t.Fatal("two healthy nodes do not reach each other")
	}
	must(t, c.Cut(a, c.Servers...))
	if reaches(t, a, c.Servers[0]) || reaches(t, c.Servers[0], a) || !reaches(t, a, b) {
		t.Error("cut off from the servers alone: reaches a server, or not its neighbour")
	}
	must(t, c.Heal())
	// A connection needs both directions, whichever is cut.
	must(t, c.CutOneWay(a, b))
	if reaches(t, a, b) || reaches(t, b, a) || !reaches(t, a, d) {
		t.Error("one way cut: the pair still connects, or another one does not")
	}
	must(t, c.Heal())
	if !reaches(t, a, b) || !reaches(t, b, a) {
		t.Error("healed, and they do not reach each other")
	}

	gone := session(t, c, d)
	before, err := d.Processes()
	must(t, err)
	if !slices.ContainsFunc(before, func(p cluster.Process) bool { return p.Is("consul", "agent") }) {
		t.Fatalf("Consul is not among the processes of %s: %v", d.Name, before)
	}
	must(t, d.Kill())
	took := eventually(t, 30*time.Second, "Consul has noticed that "+d.Name+" is lost", gone)
	t.Logf("Consul notices a dead node after %v", took.Round(100*time.Millisecond))

	must(t, d.Boot(), d.StartConsul(), d.WaitConsul(t.Context()))
	gone = session(t, c, d)
	must(t, c.Isolate(d))
	took = eventually(t, 30*time.Second, "Consul has noticed that "+d.Name+" is cut off", gone)
	t.Logf("Consul notices a node that is cut off after %v", took.Round(100*time.Millisecond))
	must(t, c.Heal())

	must(t, a.Freeze())
	stopped, err := a.Processes()
	must(t, err)
	for _, p := range stopped {
		if !p.Stopped {
			t.Errorf("%s is frozen, and %v goes on", a.Name, p.Argv)
		}
	}
	must(t, a.Thaw())
}

func TestTheRigSeesWhichProcessIsWhose(t *testing.T) {
	c := newCluster(t, 1, 2)
	a, b := c.Nodes[0], c.Nodes[1]
	must(t, a.Spawn("x.log", "sleep", "1000"), b.Spawn("x.log", "sleep", "1000"))
	sleeps := func(p cluster.Process) bool { return p.Is("sleep", "1000") }
	count := func(h *cluster.Host) (n int) {
		all, err := h.Processes()
		must(t, err)
		for _, p := range all {
			if sleeps(p) {
				n++
			}
		}
		return n
	}
	eventually(t, 5*time.Second, "both run", func() error {
		if count(a) != 1 || count(b) != 1 {
			return fmt.Errorf("%d and %d", count(a), count(b))
		}
		return nil
	})
	if n, err := a.Signal(syscall.SIGKILL, sleeps); n != 1 || err != nil || count(a) != 0 || count(b) != 1 {
		t.Errorf("killed %d on %s (%v); left: %d there, %d on %s", n, a.Name, err, count(a), count(b), b.Name)
	}
	must(t, b.Kill())
	if b.Up() || count(b) != 0 {
		t.Errorf("%s is dead, and something runs on it", b.Name)
	}
}

func TestTheRigCountsWritesAndBlockingQueries(t *testing.T) {
	c := newCluster(t, 3, 1)
	n := c.Nodes[0]
	before, err := c.Load(t.Context())
	must(t, err)
	for i := range 7 {
		if ok, err := n.Consul().Put(t.Context(), fmt.Sprintf("probe/%d", i), "", []byte("x")); err != nil || !ok {
			t.Fatalf("put: %v, %v", ok, err)
		}
	}
	id, err := n.Consul().NewSession(t.Context(), 10*time.Second, 0)
	must(t, err)
	if ok, err := n.Consul().Put(t.Context(), "probe/lock", id, nil); err != nil || !ok {
		t.Fatalf("lock: %v, %v", ok, err)
	}
	for range 4 {
		must(t, n.Spawn("watch.log", "curl", "-s", "http://127.0.0.1:8500/v1/kv/quiet?index=999999999&wait=60s"))
	}
	eventually(t, 15*time.Second, "the counts are right", func() error {
		now, err := c.Load(t.Context())
		if err != nil {
			return err
		}
		keys, certificates, err := n.Waiting(t.Context())
		if now.Writes-before.Writes != 8 || now.Sessions-before.Sessions != 1 || keys != 4 || certificates != 0 {
			return fmt.Errorf("%+v, then %+v; want 8 writes and 1 session more; %d and %d queries, want 4 and none (%v)", before, now, keys, certificates, err)
		}
		return err
	})
}

func TestAKilledRunLeavesNothing(t *testing.T) {
	needCluster(t)
	if os.Getenv(envChild) != "" {
		c, err := cluster.New(programs, 0, 1)
		must(t, err, c.Nodes[0].Boot(), c.Nodes[0].Spawn("x.log", "sleep", "1000"))
		fmt.Println(c.Dir)
		time.Sleep(time.Minute)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), envChild+"="+filepath.Dir(programs.Host))
	out, err := cmd.StdoutPipe()
	must(t, err, cmd.Start())
	dir, err := bufio.NewReader(out).ReadString('\n')
	dir = strings.TrimSpace(dir)
	must(t, err, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	eventually(t, 5*time.Second, "no process of it is left", func() error {
		cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, path := range cmdlines {
			if text, _ := os.ReadFile(path); strings.Contains(string(text), dir) {
				return fmt.Errorf("%s: %q", path, text)
			}
		}
		return nil
	})
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the killed run has left no directory to sweep: %v", err)
	}
	c, err := cluster.New(programs, 0, 0)
	must(t, err, c.Close())
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the next run has left %s: %v", dir, err)
	}
}
