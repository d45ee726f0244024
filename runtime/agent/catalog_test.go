package agent

import (
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/control"
	"github.com/synergymesh/meshrun/runtime/state/catalog"
	"github.com/synergymesh/meshrun/spec"
)

func TestAnAgentIsListedAsWellAsItIs(t *testing.T) {
	b := new(control.Node)
	listed := func(member bool) catalog.Check { return agentCheck(member, b.ProblemsBut("catalog", "membership")) }
	is := func(what string, got catalog.Check, state spec.ServiceState, output string) {
		t.Helper()
		if got != (catalog.Check{State: state, Output: output}) {
			t.Errorf("%s: it is listed as %+v", what, got)
		}
	}
	is("well", listed(true), spec.ServicePassing, "")
	// It is the catalog itself that says so, and the session that tells.
	b.Problem("catalog", "Consul is away")
	b.Problem("membership", "this node is not a member: try 7")
	is("well, but for what others tell", listed(true), spec.ServicePassing, "")
	is("no member", listed(false), spec.ServiceCritical, "this node is not a member of the cluster now")
	b.Problem("peers", "nobody is let in")
	b.Problem("identity", "no certificate")
	is("with problems", listed(true), spec.ServiceWarning, "no certificate\nnobody is let in")
	b.Problem("peers", "")
	b.Problem("identity", "")
	is("mended", listed(true), spec.ServicePassing, "")
}

func TestWhatPassesIsNoNewsForTheCluster(t *testing.T) {
	l := &listing{}
	begun := time.Now()
	for _, c := range []struct {
		after time.Duration
		wrong []string
		told  int
	}{
		{0, nil, 0},
		{time.Second, []string{"no certificate"}, 0},
		{2 * time.Second, nil, 0},
		{3 * time.Second, []string{"no certificate"}, 0},
		{12 * time.Second, []string{"no certificate"}, 0},
		{13 * time.Second, []string{"no certificate", "nobody is let in"}, 2},
		{14 * time.Second, nil, 0},
		{15 * time.Second, []string{"no certificate"}, 0},
	} {
		if got := l.lasting(c.wrong, begun.Add(c.after)); len(got) != c.told {
			t.Errorf("after %v it tells %q of %q", c.after, got, c.wrong)
		}
	}
}
