package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Events come from two places: decisions from the store, and what instances do
// from the node's journal, which the watchdog keeps.

// errEnough ends a walk over the journal at the event that was last when it began.
var errEnough = errors.New("enough")

// Events calls each with the events that the query selects, in order of time.
func (b *backend) Events(ctx context.Context, q api.EventQuery, each func(spec.Event) error) error {
	filter := eventFilter{q}
	var decided []spec.Event
	var index uint64
	var err error
	if !isLocal(ctx) { // else whoever asks has them
		if decided, index, err = b.decisions(ctx, 0); err != nil {
			return err
		}
	}
	happened, seq, err := b.journalled(ctx)
	if err != nil {
		return err
	}
	all := append(decided, happened...)
	slices.SortStableFunc(all, func(a, b spec.Event) int { return a.Time.Compare(b.Time) })
	start := 0
	if q.After != "" {
		if at := slices.IndexFunc(all, func(ev spec.Event) bool { return ev.ID == q.After }); at >= 0 {
			start = at + 1
		}
	}
	for _, ev := range all[start:] {
		if !filter.selects(ev) {
			continue
		}
		if err := each(ev); err != nil {
			return err
		}
	}
	if !q.Follow {
		return nil
	}
	return b.followEvents(ctx, index, seq, func(ev spec.Event) error {
		if !filter.selects(ev) {
			return nil
		}
		return each(ev)
	})
}

// decisions returns the events of the store that came after an index.
func (b *backend) decisions(ctx context.Context, after uint64) ([]spec.Event, uint64, error) {
	entries, index, err := b.storeFor(ctx).List(ctx, state.EventsPrefix)
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	return decodeEvents(entries, after), index, nil
}

func decodeEvents(entries []state.Entry, after uint64) []spec.Event {
	var events []spec.Event
	for _, entry := range entries {
		if entry.ModifyIndex <= after {
			continue
		}
		if ev, err := state.Decode[spec.Event](entry); err == nil {
			events = append(events, ev)
		}
	}
	return events
}

// journalled returns what the node's journal holds, and its last number.
func (b *backend) journalled(ctx context.Context) ([]spec.Event, uint64, error) {
	table, err := b.watchdog.Table(ctx)
	if err != nil {
		// Decisions can be told without it.
		b.logger.Warn("read the node's journal", "error", err)
		return nil, 0, nil
	}
	var events []spec.Event
	if table.Seq == 0 {
		return nil, 0, nil
	}
	err = b.watchdog.Events(ctx, 0, func(ev spec.Event) error {
		events = append(events, b.named(ev))
		if ev.Seq >= table.Seq {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, 0, fmt.Errorf("read the node's journal: %w", err)
	}
	return events, table.Seq, nil
}

// named completes a journalled event with what the watchdog doesn't know.
func (b *backend) named(ev spec.Event) spec.Event {
	ev.Node = b.node
	ev.ID = b.node + "/" + strconv.FormatUint(ev.Seq, 10)
	return ev
}

// followEvents passes on what comes after an index of the store and a number
// of the journal, until the context ends or each returns an error.
func (b *backend) followEvents(ctx context.Context, index, seq uint64, each func(spec.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan spec.Event)
	send := func(ev spec.Event) error {
		select {
		case events <- ev:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		if !isLocal(ctx) {
			b.followDecisions(ctx, index, send)
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		b.followJournal(ctx, seq, send)
	}()
	defer func() {
		cancel()
		<-done
		<-done
	}()
	for {
		select {
		case ev := <-events:
			if err := each(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *backend) followDecisions(ctx context.Context, index uint64, send func(spec.Event) error) {
	for ctx.Err() == nil {
		entries, next, err := b.storeFor(ctx).Watch(ctx, state.EventsPrefix, index)
		if err != nil {
			pause(ctx, time.Second)
			continue
		}
		for _, ev := range decodeEvents(entries, index) {
			if send(ev) != nil {
				return
			}
		}
		index = next
	}
}

func (b *backend) followJournal(ctx context.Context, seq uint64, send func(spec.Event) error) {
	for ctx.Err() == nil {
		// Ends when the watchdog is replaced; its successor goes on counting.
		_ = b.watchdog.Events(ctx, seq, func(ev spec.Event) error {
			seq = ev.Seq
			return send(b.named(ev))
		})
		pause(ctx, 100*time.Millisecond)
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// eventFilter is a query's conditions on a single event.
type eventFilter struct{ q api.EventQuery }

func (f eventFilter) selects(ev spec.Event) bool {
	if ev.Time.Before(f.q.Since) || (f.q.Job != "" && ev.Job != f.q.Job) {
		return false
	}
	if len(f.q.Types) == 0 {
		return true
	}
	return slices.ContainsFunc(f.q.Types, func(t spec.EventType) bool {
		return ev.Type == t || strings.HasSuffix(string(t), ".") && strings.HasPrefix(string(ev.Type), string(t))
	})
}
