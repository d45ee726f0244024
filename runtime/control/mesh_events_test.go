package control

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

// journal is a backend that tells decisions, unless it is asked locally, and
// its own journal; each is an ID and a second.
func journal(node string, happened map[string]int, decided map[string]int) *apitest.Backend {
	b := own(node)
	b.EventsFunc = func(ctx context.Context, q api.EventQuery, each func(spec.Event) error) error {
		var all []spec.Event
		add := func(events map[string]int) {
			for id, s := range events {
				all = append(all, spec.Event{ID: id, Time: time.Unix(int64(s), 0)})
			}
		}
		add(happened)
		if !api.CallOf(ctx).Local {
			add(decided)
		}
		slices.SortFunc(all, func(a, b spec.Event) int { return a.Time.Compare(b.Time) })
		if at := slices.IndexFunc(all, func(ev spec.Event) bool { return ev.ID == q.After }); at >= 0 {
			all = all[at+1:]
		}
		for _, ev := range all {
			if err := each(ev); err != nil {
				return err
			}
		}
		if q.Follow {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	return b
}

func TestEventsOfAllNodesComeOnceAndInOrder(t *testing.T) {
	n := newNodes(t)
	decided := map[string]int{"d1": 1, "d2": 6}
	n.record("node-a", "")
	m := n.mesh("node-a", journal("node-a", map[string]int{"node-a/1": 2, "node-a/2": 7}, decided))
	n.join("node-b", journal("node-b", map[string]int{"node-b/1": 3, "node-b/2": 5}, decided))
	n.join("node-c", journal("node-c", map[string]int{"node-c/1": 4}, decided))
	read := func(q api.EventQuery) string {
		t.Helper()
		var ids []string
		if err := m.Events(t.Context(), q, func(ev spec.Event) error { ids = append(ids, ev.ID); return nil }); err != nil {
			t.Error(err)
		}
		return strings.Join(ids, " ")
	}
	all := "d1 node-a/1 node-b/1 node-c/1 node-b/2 d2 node-a/2"
	if got := read(api.EventQuery{}); got != all {
		t.Errorf("%s, want %s", got, all)
	}
	if got := read(api.EventQuery{After: "node-b/1"}); got != "node-c/1 node-b/2 d2 node-a/2" {
		t.Errorf("after node-b/1: %s", got)
	}
	if got := read(api.EventQuery{After: "forgotten"}); got != all {
		t.Errorf("after one that is forgotten: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ids []string
	err := m.Events(ctx, api.EventQuery{After: "node-b/2", Follow: true}, func(ev spec.Event) error {
		if ids = append(ids, ev.ID); len(ids) == 2 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || strings.Join(ids, " ") != "d2 node-a/2" {
		t.Errorf("followed: %s, %v", ids, err)
	}
}

func TestAPlanIsAppliedByTheAgentThatMadeIt(t *testing.T) {
	n := newNodes(t)
	n.record("node-a", "")
	m := n.mesh("node-a", own("node-a"))
	b := own("node-b")
	b.ApplyFunc = func(ctx context.Context, p spec.Plan) (api.ApplyResult, error) {
		if api.Who(ctx) != "alice" || p.Index != 7 {
			t.Errorf("asked by %q for %+v", api.Who(ctx), p)
		}
		return api.ApplyResult{Index: 8}, nil
	}
	n.join("node-b", n.mesh("node-b", b))
	ctx := api.WithCall(t.Context(), api.Call{Who: "alice"})
	if result, err := m.Apply(ctx, spec.Plan{Node: "node-b", Index: 7}); err != nil || result.Index != 8 {
		t.Errorf("%+v, %v", result, err)
	}
	_, err := m.Apply(ctx, spec.Plan{Node: "node-z"})
	if !errors.Is(err, api.ErrUnavailable) || !strings.Contains(err.Error(), "node-z") || !strings.Contains(err.Error(), "plan again") {
		t.Errorf("of a node that is gone: %v", err)
	}
}

// mute is a peer that says nothing, and answers a ping or not.
type mute struct {
	api.Backend
	there bool
	pings int
}

func (m *mute) Healthy(ctx context.Context) error {
	m.pings++
	if !m.there {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (m *mute) Close() {}

func TestASilentPeerIsGivenUpOnlyIfItIsNotThere(t *testing.T) {
	for _, there := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			p := &mute{there: there}
			began := time.Now()
			err := attend(ctx, p, func(ctx context.Context, heard func()) error {
				time.Sleep(silence / 2)
				heard()
				<-ctx.Done()
				return ctx.Err()
			})
			took := time.Since(began)
			switch {
			case there && (!errors.Is(err, context.DeadlineExceeded) || took != time.Hour || p.pings < 300):
				t.Errorf("one that is only silent: %v after %v and %d pings", err, took, p.pings)
			case !there && (!errors.Is(err, api.ErrUnavailable) || took != 2*silence+pingTimeout):
				t.Errorf("one that is gone: %v after %v", err, took)
			}
		})
	}
}
