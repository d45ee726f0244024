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

func TestAPersonFindsTheClusterInConsul(t *testing.T) {
	l := tryCluster(t)
	ctx := browser(t)
	p := &page{t: t, ctx: ctx, base: "http://" + l.Addr(1) + ":8500/ui/dc1/"}
	p.open("kv/meshrun/v1/")
	p.sees("what meshrun keeps", "jobs", "placements", "assignments", "observed", "nodes", "locks", "events")
	p.follow("jobs")
	p.sees("the jobs", "tickets")
	p.follow("tickets")
	p.sees("a job", `"name": "tickets"`, `"exclusive": true`, `"checksum"`)
	p.open("kv/meshrun/v1/placements/tickets/edit")
	p.sees("a placement", `"seller"`, `"version": 1`, `"n1"`, `"n2"`, `"n3"`)
	p.open("kv/meshrun/v1/nodes/")
	p.sees("the nodes of meshrun", "n1", "n2", "n3")
	p.follow("n1")
	p.sees("a node", `"name": "n1"`, "Lock Session")

	holder, err := l.Consul().Holder(t.Context(), "meshrun/v1/locks/shards/tickets/seller/0")
	if err != nil {
		t.Fatal(err)
	}
	p.open("kv/meshrun/v1/locks/shards/tickets/seller/")
	p.sees("the locks of a process", "0", "5")
	p.follow("0")
	p.sees("a lock", "Lock Session", "serfHealth", holder.ID, holder.Name)

	p.open("services")
	p.sees("the services", "meshrun-agent")
	p.open("nodes")
	p.sees("the nodes", "c1", "c2", "c3")
}

// tryCluster starts what `make cluster` does, on addresses of its own.
func tryCluster(t *testing.T) *cluster.Local {
	consul, err := cluster.FindConsul("../..")
	need(t, err)
	dir, err := os.MkdirTemp("", "mrui")
	if err != nil {
		t.Fatal(err)
	}
	programs := cluster.Programs{Consul: consul, Meshrun: filepath.Join(dir, "meshrun")}
	if out, err := exec.Command("go", "build", "-o", programs.Meshrun, "../../cmd/meshrun").CombinedOutput(); err != nil {
		t.Fatalf("build meshrun: %v\n%s", err, out)
	}
	l := &cluster.Local{Dir: filepath.Join(dir, "c"), Net: "127.82.0", Programs: programs}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	apply := func(ctx context.Context) error { return l.Apply(ctx, "../../examples/cluster") }
	for _, step := range []func(context.Context) error{l.StartConsul, l.StartAgents, apply} {
		if err := step(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return l
}
