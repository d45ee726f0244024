package state

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// DefaultKeepEvents is how many events a store keeps; see TrimEvents.
const DefaultKeepEvents = 10_000

// eventIDTime makes IDs that sort by time and can be read.
const eventIDTime = "20060102T150405.000000000Z"

// NewEventID returns an ID that is unique and sorts by now.
func NewEventID(now time.Time) string {
	return now.UTC().Format(eventIDTime) + "-" + strings.ToLower(rand.Text()[:10])
}

// EventOp returns the operation that records an event, to be put in the
// transaction of the change that it tells of. An event without an ID gets one
// of its time; events of one transaction are read in the order of their IDs.
func EventOp(ev spec.Event) (Op, error) {
	if ev.Type == "" || ev.Time.IsZero() {
		return Op{}, fmt.Errorf("record event %q: it needs a type and a time: %w", ev.Type, ErrInvalid)
	}
	if ev.ID == "" {
		ev.ID = NewEventID(ev.Time)
	}
	if ev.Severity == "" {
		ev.Severity = spec.Info
	}
	return Op{Kind: OpSet, Key: EventKey(ev.ID), Value: Encode(ev)}, nil
}

// Events returns the recorded events in the order in which they happened,
// which is that of their transactions whatever the writers' clocks said. One
// that cannot be read is left out.
func Events(ctx context.Context, s Store) ([]spec.Event, error) {
	entries, _, err := s.List(ctx, EventsPrefix)
	if err != nil {
		return nil, err
	}
	events, _ := decodeEvents(entries)
	return events, nil
}

// Recorded is what WatchEvents has found.
type Recorded struct {
	Events []spec.Event // in order
	// Index is where to go on from.
	Index uint64
	// Unreadable counts events that somebody has damaged. They are left out,
	// so that who follows does not stay before them for good.
	Unreadable int
}

// WatchEvents blocks until events were recorded after the index, and returns
// those. Index 0 returns all at once.
func WatchEvents(ctx context.Context, s Store, after uint64) (Recorded, error) {
	for {
		entries, index, err := s.Watch(ctx, EventsPrefix, after)
		if err != nil {
			return Recorded{}, err
		}
		entries = slices.DeleteFunc(entries, func(e Entry) bool { return e.CreateIndex <= after })
		if len(entries) == 0 && after != 0 {
			after = index // events were trimmed
			continue
		}
		r := Recorded{Index: index}
		r.Events, r.Unreadable = decodeEvents(entries)
		return r, nil
	}
}

// decodeEvents returns what can be read, in order, and how many cannot.
func decodeEvents(entries []Entry) (events []spec.Event, unreadable int) {
	inOrder(entries)
	for _, e := range entries {
		ev, err := Decode[spec.Event](e)
		if err != nil {
			unreadable++
			continue
		}
		events = append(events, ev)
	}
	return events, unreadable
}

// inOrder sorts entries by their transactions.
func inOrder(entries []Entry) {
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.CreateIndex, b.CreateIndex) })
}

// subject is what a decision is about: a later event of the same subject
// supersedes an earlier one. Events that change no state have none.
type subject struct {
	what spec.EventType
	node string
	job  string
}

func subjectOf(ev spec.Event) (subject, bool) {
	switch ev.Type {
	case spec.EventJobApplied, spec.EventJobScaled, spec.EventJobStopped, spec.EventJobRestarted, spec.EventRolloutOrdered, spec.EventJobRemoved:
		return subject{what: spec.EventJobApplied, job: ev.Job}, true
	case spec.EventPlaced:
		return subject{what: spec.EventPlaced, job: ev.Job}, true
	case spec.EventAssigned:
		return subject{what: spec.EventAssigned, node: ev.Node, job: ev.Job}, true
	}
	return subject{}, false
}

// removes reports whether the event leaves nothing of its subject.
func removes(ev spec.Event) bool {
	switch ev.Type {
	case spec.EventJobRemoved:
		return true
	case spec.EventPlaced:
		return ev.Placement == nil
	case spec.EventAssigned:
		return len(ev.Assigned) == 0
	}
	return false
}

// TrimEvents returns the IDs of the events to delete, the oldest first. The
// newest keep events stay. Of the older ones each stays that was the last word
// on its subject when those began, so that Replay still gives the state at any
// time from Horizon on. Events are given, and IDs are deleted, in order.
func TrimEvents(events []spec.Event, keep int) []string {
	older := events[:max(0, len(events)-keep)]
	last := map[subject]int{}
	for i, ev := range older {
		if s, ok := subjectOf(ev); ok {
			last[s] = i
		}
	}
	var ids []string
	for i, ev := range older {
		s, ok := subjectOf(ev)
		if !ok || last[s] != i || removes(ev) {
			ids = append(ids, ev.ID)
		}
	}
	return ids
}

// Horizon returns the time from which on Replay of trimmed events is exact:
// the zero time if none can have been trimmed, which leaves at least keep.
func Horizon(events []spec.Event, keep int) time.Time {
	if len(events) < keep || len(events) == 0 {
		return time.Time{}
	}
	return events[len(events)-max(1, keep)].Time
}

// Trim deletes what TrimEvents says, and returns how many events that were. One
// that cannot be read is the last word on nothing. If it is interrupted, what
// is left is in order, and the next call goes on.
func Trim(ctx context.Context, s Store, keep int) (int, error) {
	entries, _, err := s.List(ctx, EventsPrefix)
	if err != nil {
		return 0, fmt.Errorf("trim events: %w", err)
	}
	inOrder(entries)
	events := make([]spec.Event, len(entries))
	for i, e := range entries {
		events[i], _ = Decode[spec.Event](e)
		events[i].ID = strings.TrimPrefix(e.Key, EventsPrefix)
	}
	var ops []Op
	for _, id := range TrimEvents(events, keep) {
		ops = append(ops, Op{Kind: OpDelete, Key: EventKey(id)})
	}
	done := 0
	for _, batch := range Batches(ops) {
		if _, err := s.Txn(ctx, batch...); err != nil {
			return done, fmt.Errorf("trim events: %w", err)
		}
		done += len(batch)
	}
	return done, nil
}
