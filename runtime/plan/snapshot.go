// Package plan says what an apply would do. It does not know that by itself:
// it puts the wanted version in the place of the present one, lets the
// scheduler's Place and the orchestrator's Rollout decide over a model of the
// nodes until nothing moves any more, and tells what happened to each instance
// on the way. So a plan cannot disagree with an apply.
//
//	Load ─▶ Snapshot ─┐
//	                  ├─▶ Compute ─▶ spec.Plan ─▶ Ops ─▶ transactions
//	files, orders ────┘
package plan

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Snapshot is the state that a plan is computed on.
type Snapshot struct {
	// Index is the store's index: everything up to it is in the snapshot.
	Index uint64
	Jobs  map[string]Stored[spec.JobVersion]
	// Latest is the highest version that each job ever had, also of jobs that
	// were removed.
	Latest     map[string]uint64
	Nodes      []spec.Node
	Placements map[string]Stored[spec.Placement]
	// Assignments and Observed are by job and node.
	Assignments map[string]map[string]spec.Assignment
	Observed    map[string]map[string]spec.Observed
}

// Stored is a value and its ModifyIndex.
type Stored[T any] struct {
	Value T
	Index uint64
}

// Load reads the snapshot from a store. What can't be read is an error that
// names the key.
func Load(ctx context.Context, store state.Store) (Snapshot, error) {
	s := Snapshot{Latest: map[string]uint64{}}
	var err error
	if s.Jobs, s.Index, err = loadNamed[spec.JobVersion](ctx, store, state.JobsPrefix); err != nil {
		return Snapshot{}, err
	}
	if s.Placements, _, err = loadNamed[spec.Placement](ctx, store, state.PlacementsPrefix); err != nil {
		return Snapshot{}, err
	}
	if s.Nodes, _, err = state.ListAs[spec.Node](ctx, store, state.NodesPrefix); err != nil {
		return Snapshot{}, fmt.Errorf("load nodes: %w", err)
	}
	if s.Assignments, err = loadPerNode[spec.Assignment](ctx, store, state.AssignmentsPrefix); err != nil {
		return Snapshot{}, err
	}
	if s.Observed, err = loadPerNode[spec.Observed](ctx, store, state.ObservedPrefix); err != nil {
		return Snapshot{}, err
	}
	history, _, err := store.List(ctx, state.HistoryPrefix)
	if err != nil {
		return Snapshot{}, fmt.Errorf("load history: %w", err)
	}
	for _, e := range history {
		job, version, _ := strings.Cut(strings.TrimPrefix(e.Key, state.HistoryPrefix), "/")
		if n, err := strconv.ParseUint(version, 10, 64); err == nil {
			s.Latest[job] = max(s.Latest[job], n)
		}
	}
	for name, job := range s.Jobs {
		s.Latest[name] = max(s.Latest[name], job.Value.Version)
	}
	return s, nil
}

func loadNamed[T any](ctx context.Context, store state.Store, prefix string) (map[string]Stored[T], uint64, error) {
	entries, index, err := store.List(ctx, prefix)
	if err != nil {
		return nil, 0, fmt.Errorf("load %s: %w", prefix, err)
	}
	out := make(map[string]Stored[T], len(entries))
	for _, e := range entries {
		value, err := state.Decode[T](e)
		if err != nil {
			return nil, 0, err
		}
		out[strings.TrimPrefix(e.Key, prefix)] = Stored[T]{Value: value, Index: e.ModifyIndex}
	}
	return out, index, nil
}

func loadPerNode[T any](ctx context.Context, store state.Store, prefix string) (map[string]map[string]T, error) {
	values, _, err := loadNamed[T](ctx, store, prefix)
	if err != nil {
		return nil, err
	}
	out := map[string]map[string]T{}
	for name, v := range values {
		node, job, _ := strings.Cut(name, "/")
		if out[job] == nil {
			out[job] = map[string]T{}
		}
		out[job][node] = v.Value
	}
	return out, nil
}

// Removed returns the jobs, sorted, that an apply of paths removes: those that
// came from one of the files, or from a file directly in one of the
// directories, and are no longer among the jobs that these hold. Jobs from
// elsewhere, and from no file, are not touched. Paths are absolute.
func Removed(s *Snapshot, held []string, paths []string) []string {
	var gone []string
	for name, job := range s.Jobs {
		source := job.Value.Source
		if source == "" || slices.Contains(held, name) {
			continue
		}
		for _, p := range paths {
			p = filepath.Clean(p)
			if source == p || filepath.Dir(source) == p {
				gone = append(gone, name)
				break
			}
		}
	}
	slices.Sort(gone)
	return gone
}
