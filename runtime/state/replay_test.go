package state_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/local"
	"github.com/synergymesh/meshrun/spec"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func memory(t interface{ Cleanup(func()) }) *local.Store {
	s := local.OpenMemory(local.Options{})
	t.Cleanup(func() { s.Close() })
	return s
}

// decider makes random decisions in a store, each with its event, and
// remembers what the store held after each.
type decider struct {
	t        *rapid.T
	store    state.Store
	now      time.Time
	versions map[string]uint64
	after    []state.Snapshot
}

// decide makes one decision.
func (d *decider) decide() {
	job := rapid.SampledFrom([]string{"web", "db", "cron"}).Draw(d.t, "job")
	node := rapid.SampledFrom([]string{"node-a", "node-b"}).Draw(d.t, "node")
	d.now = d.now.Add(time.Duration(rapid.IntRange(1, 1e9).Draw(d.t, "pause")))
	ev := spec.Event{Time: d.now, Job: job}
	var op state.Op
	switch rapid.IntRange(0, 6).Draw(d.t, "decision") {
	case 0, 1:
		d.versions[job]++
		ev.Version = d.versions[job]
		ev.Type = rapid.SampledFrom([]spec.EventType{spec.EventJobApplied, spec.EventJobScaled, spec.EventJobStopped, spec.EventJobRestarted, spec.EventRolloutOrdered}).Draw(d.t, "type")
		op = state.Op{Kind: state.OpSet, Key: state.JobKey(job), Value: state.Encode(spec.JobVersion{Version: ev.Version})}
	case 2:
		ev.Type = spec.EventJobRemoved
		op = state.Op{Kind: state.OpDelete, Key: state.JobKey(job)}
	case 3:
		ev.Type = spec.EventPlaced
		ev.Placement = &spec.Placement{Job: job, Version: d.versions[job], Processes: map[string]map[string]spec.ShardSet{
			"p": {node: spec.NewShardSet(0, 1, rapid.IntRange(2, 5).Draw(d.t, "shard"))},
		}}
		op = state.Op{Kind: state.OpSet, Key: state.PlacementKey(job), Value: state.Encode(ev.Placement)}
	case 4:
		ev.Type = spec.EventPlaced
		op = state.Op{Kind: state.OpDelete, Key: state.PlacementKey(job)}
	case 5:
		a := d.assignment(job, node)
		ev.Type, ev.Node, ev.Assigned = spec.EventAssigned, node, a.Assigned()
		op = state.Op{Kind: state.OpSet, Key: state.AssignmentKey(node, job), Value: state.Encode(a)}
	case 6:
		ev.Type, ev.Node = spec.EventAssigned, node
		op = state.Op{Kind: state.OpDelete, Key: state.AssignmentKey(node, job)}
	}
	record, err := state.EventOp(ev)
	if err == nil {
		_, err = d.store.Txn(context.Background(), op, record)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	d.after = append(d.after, d.present())
}

func (d *decider) assignment(job, node string) spec.Assignment {
	held := rapid.IntRange(0, 3).Draw(d.t, "held")
	return spec.Assignment{Job: job, Node: node, Processes: []spec.AssignedProcess{{
		Process: spec.Process{Name: "p", Env: map[string]spec.Template{"TOKEN": "hunter2"}},
		Version: d.versions[job],
		Shards:  spec.NewShardSet(0, 1, 2, 3),
		Held:    map[int]string{held: "waits for db"},
		Epochs:  map[int]uint64{1: 1, 3: 1, held: 2},
	}}}
}

// present reads the state from its own keys.
func (d *decider) present() state.Snapshot {
	s := state.Replay(nil, time.Time{})
	s.Time, s.Events = d.now, len(d.after)+1
	ctx := context.Background()
	jobs, _, err1 := d.store.List(ctx, state.JobsPrefix)
	placements, _, err2 := state.ListAs[spec.Placement](ctx, d.store, state.PlacementsPrefix)
	assignments, _, err3 := state.ListAs[spec.Assignment](ctx, d.store, state.AssignmentsPrefix)
	if err := errors.Join(err1, err2, err3); err != nil {
		d.t.Fatal(err)
	}
	for _, e := range jobs {
		v, err := state.Decode[spec.JobVersion](e)
		if err != nil {
			d.t.Fatal(err)
		}
		s.Jobs[strings.TrimPrefix(e.Key, state.JobsPrefix)] = v.Version
	}
	for _, p := range placements {
		s.Placements[p.Job] = p
	}
	for _, a := range assignments {
		if s.Assignments[a.Node] == nil {
			s.Assignments[a.Node] = map[string][]spec.AssignedShards{}
		}
		s.Assignments[a.Node][a.Job] = a.Assigned()
	}
	return s
}

func (d *decider) events() []spec.Event {
	events, err := state.Events(context.Background(), d.store)
	if err != nil {
		d.t.Fatal(err)
	}
	return events
}

// runDecisions makes up to 40 decisions.
func runDecisions(t *rapid.T) *decider {
	d := &decider{t: t, store: memory(t), now: epoch, versions: map[string]uint64{}}
	for range rapid.IntRange(1, 40).Draw(t, "decisions") {
		d.decide()
	}
	return d
}

func TestReplayUntilAnyEventGivesTheStateThen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := runDecisions(t)
		events := d.events()
		for i, ev := range events {
			if got := state.Replay(events, ev.Time); !reflect.DeepEqual(got, d.after[i]) {
				t.Fatalf("after event %d (%s %s):\ngot  %+v\nwant %+v", i, ev.Type, ev.Job, got, d.after[i])
			}
			if got := state.Replay(events, ev.Time.Add(-1)); got.Events != i {
				t.Fatalf("just before event %d, %d are in the state", i, got.Events)
			}
		}
	})
}

func TestReplayOfTrimmedEventsGivesTheStateSinceTheHorizon(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := runDecisions(t)
		all := d.events()
		keep := rapid.IntRange(1, 20).Draw(t, "keep")
		deleted, err := state.Trim(context.Background(), d.store, keep)
		if err != nil {
			t.Fatal(err)
		}
		left := d.events()
		if len(left)+deleted != len(all) {
			t.Fatalf("%d deleted, %d of %d left", deleted, len(left), len(all))
		}
		const subjects = 3 + 3 + 6 // jobs, placements, assignments
		if len(left) > keep+subjects {
			t.Fatalf("%d events are left, of at most %d", len(left), keep+subjects)
		}
		horizon := state.Horizon(left, keep)
		for i, ev := range all {
			if ev.Time.Before(horizon) {
				continue
			}
			got, want := state.Replay(left, ev.Time), d.after[i]
			got.Events = want.Events
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("after event %d:\ngot  %+v\nwant %+v", i, got, want)
			}
		}
		if again := state.TrimEvents(left, keep); len(again) > 0 {
			t.Fatalf("trimming again deletes %v", again)
		}
	})
}

func TestTrimmingForgetsWhatWasRemovedAndKeepsLastWords(t *testing.T) {
	var events []spec.Event
	for i, ev := range []spec.Event{
		{Type: spec.EventJobApplied, Job: "gone"}, {Type: spec.EventJobApplied, Job: "kept"}, {Type: spec.EventSignalled, Job: "kept"},
		{Type: spec.EventJobScaled, Job: "kept"}, {Type: spec.EventJobRemoved, Job: "gone"}, {Type: spec.EventJobApplied, Job: "new"},
	} {
		ev.ID, ev.Time = fmt.Sprint(i), epoch.Add(time.Duration(i))
		events = append(events, ev)
	}
	if got := state.TrimEvents(events, 1); !slices.Equal(got, []string{"0", "1", "2", "4"}) {
		t.Errorf("deletes %v", got)
	}
}

func TestEventsHoldNoValuesOfJobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := runDecisions(t)
		entries, _, err := d.store.List(context.Background(), state.EventsPrefix)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.Contains(string(e.Value), "hunter2") {
				t.Fatalf("%s holds a secret: %s", e.Key, e.Value)
			}
		}
	})
}

func TestReplayEndsBeforeTheFirstLaterEventWhateverTheClocksSaid(t *testing.T) {
	applied := func(job string, after time.Duration) spec.Event {
		return spec.Event{Type: spec.EventJobApplied, Job: job, Version: 1, Time: epoch.Add(after)}
	}
	events := []spec.Event{applied("a", 1), applied("fast", 30), applied("b", 2)}
	got := state.Replay(events, epoch.Add(2))
	if !maps.Equal(got.Jobs, map[string]uint64{"a": 1}) {
		t.Errorf("jobs are %v", got.Jobs)
	}
}

func TestAnEventGetsAnIDThatIsUniqueAndSortsByItsTime(t *testing.T) {
	var ids []string
	for i := range 1000 {
		ids = append(ids, state.NewEventID(epoch.Add(time.Duration(i/2)*time.Millisecond)))
	}
	for i := 2; i < len(ids); i++ {
		if ids[i-2] >= ids[i] || ids[i] == ids[i-1] {
			t.Fatalf("%s comes after %s and %s", ids[i], ids[i-1], ids[i-2])
		}
	}
}

func TestEventsAreReadInTheOrderOfTheirTransactions(t *testing.T) {
	s := memory(t)
	for i, after := range []time.Duration{5, 1, 3} {
		op, err := state.EventOp(spec.Event{Type: spec.EventSignalled, Time: epoch.Add(after), Message: fmt.Sprint(i)})
		check(t, err)
		_, err = s.Txn(t.Context(), op)
		check(t, err)
	}
	events, err := state.Events(t.Context(), s)
	check(t, err)
	var got []string
	for _, ev := range events {
		got = append(got, ev.Message)
		if ev.ID == "" || ev.Severity != spec.Info {
			t.Errorf("got %+v", ev)
		}
	}
	if !slices.Equal(got, []string{"0", "1", "2"}) {
		t.Errorf("got order %v", got)
	}
}

func TestWatchedEventsAreThoseSinceTheIndex(t *testing.T) {
	s := memory(t)
	record := func(message string) {
		op, err := state.EventOp(spec.Event{Type: spec.EventSignalled, Time: epoch, Message: message})
		check(t, err)
		_, err = s.Txn(t.Context(), op)
		check(t, err)
	}
	record("a")
	begin, err := state.WatchEvents(t.Context(), s, 0)
	check(t, err)
	if len(begin.Events) != 1 || begin.Events[0].Message != "a" {
		t.Errorf("from the beginning: %+v", begin)
	}
	_, err = state.Trim(t.Context(), s, 0) // no event: it must not return for this
	check(t, err)
	record("b")
	record("c")
	since, err := state.WatchEvents(t.Context(), s, begin.Index)
	check(t, err)
	if len(since.Events) != 2 || since.Events[0].Message != "b" || since.Events[1].Message != "c" {
		t.Errorf("since then: %+v", since)
	}
}

func TestADamagedEventStopsNobody(t *testing.T) {
	s := memory(t)
	record := func(message string) {
		op, err := state.EventOp(spec.Event{Type: spec.EventSignalled, Time: epoch, Message: message})
		check(t, err)
		_, err = s.Txn(t.Context(), op)
		check(t, err)
	}
	record("a")
	_, err := s.Txn(t.Context(), state.Op{Kind: state.OpSet, Key: state.EventKey("broken"), Value: []byte("{")})
	check(t, err)
	record("b")
	r, err := state.WatchEvents(t.Context(), s, 0)
	check(t, err)
	if len(r.Events) != 2 || r.Events[1].Message != "b" || r.Unreadable != 1 {
		t.Errorf("watched %+v", r)
	}
	events, err := state.Events(t.Context(), s)
	check(t, err)
	if len(events) != 2 {
		t.Errorf("read %+v", events)
	}
	n, err := state.Trim(t.Context(), s, 1)
	check(t, err)
	if n != 2 {
		t.Errorf("trimmed %d events, want the damaged one and the one before", n)
	}
	if r, err = state.WatchEvents(t.Context(), s, 0); err != nil || len(r.Events) != 1 || r.Unreadable != 0 {
		t.Errorf("after trimming: %+v (%v)", r, err)
	}
}

func TestAnEventWithoutTypeOrTimeIsRefused(t *testing.T) {
	for _, ev := range []spec.Event{{Type: spec.EventPlaced}, {Time: epoch}} {
		if _, err := state.EventOp(ev); !errors.Is(err, state.ErrInvalid) {
			t.Errorf("%+v: got error %v", ev, err)
		}
	}
}
