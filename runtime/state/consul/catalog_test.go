package consul_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/catalog"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/spec"
)

// webService is a service as an instance's is.
func webService(job string) catalog.Service {
	return catalog.Service{
		ID: "meshrun/n1/" + job + "/web/0/" + job, Name: job, Port: 20001, Tags: []string{"v2", "ü/?#"},
		Meta:  map[string]string{"node": "n1", "job": job, "process": "web", "shard": "0", "version": "3"},
		Check: catalog.Check{State: spec.ServicePassing},
	}
}

// health is what others see of a service: the entries of its instances.
func health(t *testing.T, s *consultest.Server, name string) []healthEntry {
	t.Helper()
	var entries []healthEntry
	if err := s.Call(t.Context(), http.MethodGet, "/v1/health/service/"+url.PathEscape(name), nil, &entries); err != nil {
		t.Fatal(err)
	}
	return entries
}

type healthEntry struct {
	Service struct {
		ID, Address string
		Port        int
		Tags        []string
		Meta        map[string]string
		ModifyIndex uint64
	}
	Checks []struct {
		CheckID, Status, Output string
		ModifyIndex             uint64
	}
}

// text is "id port status output" of each entry.
func (e healthEntry) text() string {
	for _, c := range e.Checks {
		if c.CheckID != "serfHealth" {
			return strings.TrimSpace(fmt.Sprintf("%s %d %s %s", e.Service.ID, e.Service.Port, c.Status, c.Output))
		}
	}
	return e.Service.ID + " without a check"
}

// shows waits until others see this of a service.
func shows(t *testing.T, s *consultest.Server, name string, want ...string) {
	t.Helper()
	var got []string
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got = nil
		for _, e := range health(t, s, name) {
			got = append(got, e.text())
		}
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("service %s is %q, want %q", name, got, want)
		}
	}
}

func do(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// mine returns a service of the local agent.
func mine(t *testing.T, c consul.Catalog, id string) (catalog.Service, bool) {
	t.Helper()
	services, err := c.Services(t.Context())
	do(t, "list", err)
	for _, s := range services {
		if s.ID == id {
			return s, true
		}
	}
	return catalog.Service{}, false
}

func TestTheCatalogShowsWhatIsRegisteredAndReported(t *testing.T) {
	t.Parallel()
	c := open(t, server, consul.Options{}).Catalog()
	ctx := t.Context()
	s := webService("shown")
	if err := c.Report(ctx, s.ID, s.Check); !errors.Is(err, catalog.ErrUnknown) {
		t.Errorf("report before it is registered: %v", err)
	}
	do(t, "deregister nothing", c.Deregister(ctx, s.ID))
	do(t, "register", c.Register(ctx, s))
	shows(t, server, s.Name, s.ID+" 20001 passing")
	sick := webService("sick")
	sick.Check = catalog.Check{State: spec.ServiceCritical, Output: "failed: used up"}
	do(t, "register", c.Register(ctx, sick))
	do(t, "report", c.Report(ctx, sick.ID, sick.Check))
	shows(t, server, sick.Name, sick.ID+" 20001 critical failed: used up")

	if e := health(t, server, s.Name)[0].Service; !reflect.DeepEqual(e.Meta, s.Meta) || !slices.Equal(e.Tags, s.Tags) || e.Address != "" {
		t.Errorf("it is seen as %+v", e)
	}
	if got, _ := mine(t, c, s.ID); !reflect.DeepEqual(got, s) {
		t.Errorf("it is listed as %+v, want %+v", got, s)
	}

	s.Check = catalog.Check{State: spec.ServiceCritical, Output: "failed: used up"}
	do(t, "report", c.Report(ctx, s.ID, s.Check))
	shows(t, server, s.Name, s.ID+" 20001 critical failed: used up")

	s.Port, s.Tags, s.Address = 20002, nil, "10.0.0.1"
	s.Check = catalog.Check{State: spec.ServiceWarning, Output: "starting"}
	do(t, "register otherwise", c.Register(ctx, s))
	do(t, "report", c.Report(ctx, s.ID, s.Check))
	shows(t, server, s.Name, s.ID+" 20002 warning starting")
	got, _ := mine(t, c, s.ID)
	if d := catalog.Diff([]catalog.Service{s}, map[string]catalog.Service{s.ID: got}, catalog.Mine("n1")); !reflect.DeepEqual(d, catalog.Actions{}) {
		t.Errorf("it differs still: %+v", d)
	}

	do(t, "take its check off", server.Call(ctx, http.MethodPut, "/v1/agent/check/deregister/"+"service:"+s.ID, nil, nil))
	if got, ok := mine(t, c, s.ID); !ok || got.Check.State != "" {
		t.Errorf("without its check it is listed as %+v, %t", got, ok)
	}
	do(t, "deregister", c.Deregister(ctx, s.ID))
	shows(t, server, s.Name)
}

// Consul's servers must have nothing to do while nothing changes: neither the
// raft log nor an index of the catalog may move.
func TestReportingTheSameIsWrittenNowhere(t *testing.T) {
	t.Parallel()
	// By default Consul would put off a change of the output alone.
	own := start(t, consultest.Options{Config: `disable_coordinates = true, check_update_interval = "0s"`})
	c := open(t, own, consul.Options{}).Catalog()
	passing, failed := webService("calm"), webService("failed")
	failed.Check = catalog.Check{State: spec.ServiceCritical, Output: "failed: used up"}
	for _, s := range []catalog.Service{passing, failed} {
		do(t, "register", c.Register(t.Context(), s))
		do(t, "report", c.Report(t.Context(), s.ID, s.Check))
	}
	shows(t, own, passing.Name, passing.ID+" 20001 passing")
	shows(t, own, failed.Name, failed.ID+" 20001 critical failed: used up")

	before, log := index(t, own), quiet(t, own)
	for range 200 {
		do(t, "report", c.Report(t.Context(), passing.ID, passing.Check))
		do(t, "report", c.Report(t.Context(), failed.ID, failed.Check))
	}
	time.Sleep(time.Second) // for what Consul would write behind our back
	if after := index(t, own); after != before {
		t.Errorf("400 reports moved the catalog from index %d to %d", before, after)
	}
	if now := logIndex(t, own); now != log {
		t.Errorf("400 reports moved the raft log from %s to %s", log, now)
	}
}

// index is the highest index in the catalog.
func index(t *testing.T, s *consultest.Server) (highest uint64) {
	t.Helper()
	for _, name := range []string{"calm", "failed"} {
		for _, e := range health(t, s, name) {
			highest = max(highest, e.Service.ModifyIndex)
			for _, c := range e.Checks {
				highest = max(highest, c.ModifyIndex)
			}
		}
	}
	return highest
}

func logIndex(t *testing.T, s *consultest.Server) string {
	t.Helper()
	var self struct{ Stats map[string]map[string]string }
	if err := s.Call(t.Context(), http.MethodGet, "/v1/agent/self", nil, &self); err != nil {
		t.Fatal(err)
	}
	last := self.Stats["raft"]["last_log_index"]
	if last == "" {
		t.Fatalf("Consul does not tell its raft index: %v", self.Stats)
	}
	return last
}

// quiet waits until a fresh server writes no more by itself.
func quiet(t *testing.T, s *consultest.Server) string {
	t.Helper()
	last, since := logIndex(t, s), time.Now()
	for deadline := time.Now().Add(patience); time.Since(since) < 2*time.Second; time.Sleep(50 * time.Millisecond) {
		if now := logIndex(t, s); now != last {
			last, since = now, time.Now()
		}
		if time.Now().After(deadline) {
			t.Fatal("the server goes on writing by itself")
		}
	}
	return last
}

// keep runs a keeper of node n1 on a store until the test ends.
func keep(t *testing.T, s *consul.Store, problem func(string), wanted ...catalog.Service) {
	t.Helper()
	k := catalog.NewKeeper(catalog.Config{
		Local: s.Catalog(), Mine: catalog.Mine("n1"), Logger: hclog.NewNullLogger(), Problem: problem,
		Wanted: func() ([]catalog.Service, bool) { return wanted, true },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestAConsulThatForgotIsToldAgainAndOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	own := start(t, consultest.Options{}) // in memory: its end is oblivion
	other := map[string]any{"ID": "db", "Name": "db", "Port": 5432}
	for _, id := range []string{"db", "meshrun/n2/shop/web/0/db", "meshrun-agent/n2"} {
		other["ID"] = id
		do(t, "register another's", own.Call(t.Context(), http.MethodPut, "/v1/agent/service/register", other, nil))
	}
	s := webService("again")
	keep(t, open(t, own, consul.Options{}), func(string) {}, s)
	shows(t, own, s.Name, s.ID+" 20001 passing")
	shows(t, own, "db", "db without a check", "meshrun-agent/n2 without a check", "meshrun/n2/shop/web/0/db without a check")

	own.Kill()
	do(t, "start Consul again", own.Start(t.Context()))
	shows(t, own, s.Name, s.ID+" 20001 passing")
}

func TestAServiceThatTheTokenMayNotRegisterIsToldOfAndHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	own := guarded(t)
	secret, _ := token(t, own, `key_prefix "meshrun/" { policy = "write" } session_prefix "" { policy = "write" } service "allowed" { policy = "write" } node_prefix "" { policy = "read" }`)
	allowed, denied := webService("allowed"), webService("denied")
	var mu sync.Mutex // guards problems
	var problems []string
	keep(t, open(t, own, consul.Options{Token: secret}), func(text string) {
		mu.Lock()
		defer mu.Unlock()
		problems = append(problems, text)
	}, denied, allowed)
	shows(t, own, allowed.Name, allowed.ID+" 20001 passing")
	shows(t, own, denied.Name)
	eventually(t, "the problem is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(problems) > 0 && strings.Contains(problems[0], `service "denied" { policy = "write" }`)
	})
	_, err := open(t, own, consul.Options{Token: secret}).Catalog().Services(t.Context())
	do(t, "list", err)
	if err := open(t, own, consul.Options{Token: secret}).Catalog().Register(t.Context(), denied); !errors.Is(err, state.ErrDenied) {
		t.Errorf("register: %v", err)
	}
}
