package scheduler

import (
	"context"
	"errors"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/follow"
)

const (
	// recordGrace is how long nothing is moved off a node whose record is gone
	// while its session lives: somebody has deleted it, and the node's agent puts
	// it back.
	recordGrace = 2 * time.Second
	// recordLook doubles: so soon it is looked whether the session lives still. A
	// node that leaves takes its record away a moment before it ends its session.
	recordLook = 5 * time.Millisecond
)

// records tells nodes that are gone from nodes of which only the record is.
type records struct {
	holders map[string]string // node → the session that holds its record
	missing map[string]missing
}

// missing is a record that is gone.
type missing struct {
	session string    // that held it
	since   time.Time // zero until it was looked at
}

func newRecords() records {
	return records{holders: map[string]string{}, missing: map[string]missing{}}
}

// take takes an update of the nodes over.
func (r *records) take(u follow.Update) {
	for _, e := range u.Changed {
		name := follow.Name(u.Prefix, e.Key)
		r.holders[name] = e.Session
		delete(r.missing, name)
	}
	for _, key := range u.Removed {
		name := follow.Name(u.Prefix, key)
		if session := r.holders[name]; session != "" {
			r.missing[name] = missing{session: session}
		}
		delete(r.holders, name)
	}
}

// doubted returns the nodes that only seem to be gone, and when to look again.
func (d *reconciler) doubted(ctx context.Context, now time.Time) (nodes map[string]bool, until time.Time) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	for name, m := range d.records.missing {
		if m.since.IsZero() {
			m.since = now
			d.records.missing[name] = m
		}
		gone := now.Sub(m.since) >= recordGrace
		if !gone {
			_, err := d.store.Session(ctx, m.session)
			gone = errors.Is(err, state.ErrSessionNotFound)
		}
		if gone {
			delete(d.records.missing, name)
			continue
		}
		if nodes == nil {
			nodes = map[string]bool{}
		}
		nodes[name] = true
		look := now.Add(max(recordLook, now.Sub(m.since)))
		if until.IsZero() || look.Before(until) {
			until = look
		}
	}
	return nodes, until
}
