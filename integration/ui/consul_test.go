package ui

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
)

// startCluster starts a cluster on this machine with the example applied.
func startCluster(t *testing.T) *cluster.Local {
	t.Helper()
	consul, err := cluster.FindConsul("../..")
	need(t, err)
	dir, err := os.MkdirTemp("", "mrui")
	if err != nil {
		t.Fatal(err)
	}
	meshrun := filepath.Join(dir, "meshrun")
	if text, err := exec.Command("go", "build", "-o", meshrun, "../../cmd/meshrun").CombinedOutput(); err != nil {
		t.Fatalf("build meshrun: %v\n%s", err, text)
	}
	// Its addresses are its own, beside those of make cluster.
	l := &cluster.Local{Dir: filepath.Join(dir, "c"), Net: "127.82.0", Programs: cluster.Programs{Consul: consul, Meshrun: meshrun}}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, step := range []func() error{
		func() error { return l.StartConsul(ctx) },
		func() error { return l.StartAgents(ctx) },
		func() error { return l.Apply(ctx, "../../examples/cluster") },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestAPersonFindsAJobItsPlacementAndALockInConsul(t *testing.T) {
	ctx := browser(t)
	l := startCluster(t)
	p := &page{t: t, ctx: ctx, base: "http://" + l.Addr(1) + ":8500"}

	p.open("meshrun/v1/")
	p.sees("what meshrun keeps", "assignments", "events", "jobs", "locks", "nodes", "observed", "placements")
	p.follow("jobs")
	p.sees("the jobs", "tickets")
	p.follow("tickets")
	p.sees("a job", `"name": "seller"`, `"exclusive": true`, `"shards": 6`)

	p.open("meshrun/v1/placements/tickets/edit")
	p.sees("a placement", `"seller"`, `"counter"`, `"n1"`, `"n2"`, `"n3"`)

	p.open("meshrun/v1/nodes/")
	p.sees("the nodes", "n1", "n2", "n3")
	p.follow("n1")
	p.sees("a node", `"name": "n1"`, "Lock Session")

	holder, err := l.Consul().Holder(t.Context(), "meshrun/v1/locks/shards/tickets/seller/0")
	if err != nil {
		t.Fatal(err)
	}
	p.open("meshrun/v1/locks/shards/tickets/seller/")
	p.sees("the locks of a process", "0", "5")
	p.follow("0")
	p.sees("a lock", "Lock Session", holder.ID, holder.Name, holder.Node)
}
