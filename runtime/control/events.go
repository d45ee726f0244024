package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Events come from two places: decisions from the store, and what instances do
// from the node's journal, which the watchdog keeps.

// errEnough ends a walk over the journal at the event that was last when it began.
var errEnough = errors.New("enough")

// Events calls each with the events that the query selects, in order of time.
func (b *Node) Events(ctx context.Context, q api.EventQuery, each func(spec.Event) error) error {
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

// decisions returns the events of the store that came after an index, as soon
// as there are any, and the index to go on from; those after 0 at once.
func (b *Node) decisions(ctx context.Context, after uint64) ([]spec.Event, uint64, error) {
	r, err := state.WatchEvents(ctx, b.storeFor(ctx), after)
	if err != nil {
		return nil, 0, fmt.Errorf("read events: %w", err)
	}
	if r.Unreadable > 0 {
		b.cfg.Logger.Warn("recorded events are damaged and left out", "events", r.Unreadable)
	}
	return r.Events, r.Index, nil
}

// journalled returns what the node's journal holds, and its last number.
func (b *Node) journalled(ctx context.Context) ([]spec.Event, uint64, error) {
	table, err := b.cfg.Watchdog.Table(ctx)
	if err != nil {
		// Decisions can be told without it.
		b.cfg.Logger.Warn("read the node's journal", "error", err)
		return nil, 0, nil
	}
	var events []spec.Event
	if table.Seq == 0 {
		return nil, 0, nil
	}
	err = b.cfg.Watchdog.Events(ctx, 0, func(ev spec.Event) error {
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
func (b *Node) named(ev spec.Event) spec.Event {
	ev.Node = b.cfg.Node
	ev.ID = b.cfg.Node + "/" + strconv.FormatUint(ev.Seq, 10)
	return ev
}

// followEvents passes on what comes after an index of the store and a number
// of the journal, until the context ends or each returns an error.
func (b *Node) followEvents(ctx context.Context, index, seq uint64, each func(spec.Event) error) error {
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

func (b *Node) followDecisions(ctx context.Context, index uint64, send func(spec.Event) error) {
	for ctx.Err() == nil {
		events, next, err := b.decisions(ctx, index)
		if err != nil {
			_ = loop.Sleep(ctx, time.Second)
			continue
		}
		for _, ev := range events {
			if send(ev) != nil {
				return
			}
		}
		index = next
	}
}

func (b *Node) followJournal(ctx context.Context, seq uint64, send func(spec.Event) error) {
	wait := loop.Backoff{Min: firstRetry, Max: lastRetry}
	for ctx.Err() == nil {
		// Ends when the watchdog is replaced; its successor goes on counting.
		_ = b.cfg.Watchdog.Events(ctx, seq, func(ev spec.Event) error {
			seq = ev.Seq
			wait.Reset()
			return send(b.named(ev))
		})
		_ = loop.Sleep(ctx, wait.Next())
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
