package ui

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
	"github.com/synergymesh/meshrun/spec"
)

func TestAPersonFindsAJobItsPlacementAndALockInConsul(t *testing.T) {
	ctx := browser(t)
	consul, err := cluster.FindConsul("../..")
	need(t, err)
	dir, err := os.MkdirTemp("", "mrui")
	if err != nil {
		t.Fatal(err)
	}
	// An address of its own, beside that of make cluster.
	l := &cluster.Local{Dir: dir, Net: "127.82.0", Programs: cluster.Programs{Consul: consul}}
	t.Cleanup(func() {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	start, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.StartConsul(start); err != nil {
		t.Fatal(err)
	}
	fill(t, l)

	p := &page{t: t, ctx: ctx, base: "http://" + l.Addr(1) + ":8500"}
	p.open("meshrun/v1/")
	p.sees("what meshrun keeps", "jobs", "placements", "locks")
	p.follow("jobs")
	p.sees("the jobs", "tickets")
	p.follow("tickets")
	p.sees("a job", `"name": "seller"`, `"exclusive": true`)
	p.open("meshrun/v1/placements/tickets/edit")
	p.sees("a placement", `"seller"`, `"0-1"`)
	p.open("meshrun/v1/locks/shards/tickets/seller/0/edit")
	p.sees("a lock", "Lock Session", "c1")
}

func fill(t *testing.T, l *cluster.Local) {
	job := spec.JobVersion{Job: spec.Job{Name: "tickets", Processes: []spec.Process{{Name: "seller", Shards: 6, Exclusive: true}}}}
	pl := spec.Placement{Job: "tickets", Processes: map[string]map[string]spec.ShardSet{"seller": {"n1": {0, 1}}}}
	id, err := l.Consul().NewSession(t.Context(), 10*time.Second, 0)
	if err != nil {
		t.Fatal(err)
	}
	put := func(key, s string, v any) {
		b, _ := json.MarshalIndent(v, "", "  ")
		if ok, err := l.Consul().Put(t.Context(), "meshrun/v1/"+key, s, b); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	put("jobs/tickets", "", job)
	put("placements/tickets", "", pl)
	put("locks/shards/tickets/seller/0", id, "n1")
}
