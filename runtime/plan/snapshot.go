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
	"time"

	"golang.org/x/sync/errgroup"

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
	Latest map[string]uint64
	Nodes  []spec.Node
	// Grace is how long an exclusive process has to stop by itself when its
	// node loses the cluster; 0 if there is none to lose. Load leaves it alone.
	Grace      time.Duration
	Placements map[string]Stored[spec.Placement]
	// Assignments and Observed are by job and node.
	Assignments map[string]map[string]spec.Assignment
	Observed    map[string]map[string]spec.Observed
	// Rollouts are what is remembered of the jobs' rollouts.
	Rollouts map[string]Stored[spec.Rollout]
	// Runs are the runs of the jobs' scheduled processes, by job.
	Runs map[string][]spec.Run
}

// Stored is a value and its ModifyIndex.
type Stored[T any] struct {
	Value T
	Index uint64
}

// Load reads the snapshot from a store. What can't be read is an error that
// names the key. What the nodes without have reported is left out, for callers
// who know better what these see.
func Load(ctx context.Context, store state.Store, without ...string) (Snapshot, error) {
	s := Snapshot{Latest: map[string]uint64{}}
	var lists [7][]state.Entry
	for i, prefix := range [...]string{
		state.JobsPrefix, state.PlacementsPrefix, state.NodesPrefix,
		state.AssignmentsPrefix, state.ObservedPrefix, state.HistoryPrefix, state.RolloutsPrefix,
	} {
		entries, index, err := store.List(ctx, prefix)
		if err != nil {
			return Snapshot{}, fmt.Errorf("load %s: %w", prefix, err)
		}
		if i == 0 {
			s.Index = index // the oldest: the others are read after it
		}
		lists[i] = entries
	}
	reported := slices.DeleteFunc(lists[4], func(e state.Entry) bool {
		node, _, _ := strings.Cut(strings.TrimPrefix(e.Key, state.ObservedPrefix), "/")
		return slices.Contains(without, node)
	})
	var work errgroup.Group // decoding is most of the work
	work.Go(func() (err error) { s.Jobs, err = named[spec.JobVersion](lists[0], state.JobsPrefix); return err })
	work.Go(func() (err error) {
		if s.Placements, err = named[spec.Placement](lists[1], state.PlacementsPrefix); err != nil {
			return err
		}
		if s.Nodes, err = state.DecodeAll[spec.Node](lists[2]); err != nil {
			return err
		}
		if s.Assignments, err = perNode[spec.Assignment](lists[3], state.AssignmentsPrefix); err != nil {
			return err
		}
		if s.Observed, err = perNode[spec.Observed](reported, state.ObservedPrefix); err != nil {
			return err
		}
		s.Rollouts, err = named[spec.Rollout](lists[6], state.RolloutsPrefix)
		return err
	})
	if err := work.Wait(); err != nil {
		return Snapshot{}, err
	}
	s.learnVersions(lists[5])
	return s, s.loadRuns(ctx, store)
}

// loadRuns reads the runs of the jobs that have schedules. They are read after
// what they are runs of: one that isn't there is taken for one that never was.
func (s *Snapshot) loadRuns(ctx context.Context, store state.Store) error {
	s.Runs = map[string][]spec.Run{}
	for name, job := range s.Jobs {
		if !slices.ContainsFunc(job.Value.Job.Processes, func(p spec.Process) bool { return p.Schedule != nil }) {
			continue
		}
		entries, _, err := store.List(ctx, state.RunsPrefix+name+"/")
		if err != nil {
			return fmt.Errorf("load runs of job %s: %w", name, err)
		}
		if s.Runs[name], err = state.DecodeAll[spec.Run](entries); err != nil {
			return err
		}
	}
	return nil
}

// learnVersions notes the highest version of each job, with those in history.
func (s *Snapshot) learnVersions(history []state.Entry) {
	for _, e := range history {
		job, version, _ := strings.Cut(strings.TrimPrefix(e.Key, state.HistoryPrefix), "/")
		if n, err := strconv.ParseUint(version, 10, 64); err == nil {
			s.Latest[job] = max(s.Latest[job], n)
		}
	}
	for name, job := range s.Jobs {
		s.Latest[name] = max(s.Latest[name], job.Value.Version)
	}
}

// named decodes entries and returns them by their key without the prefix.
func named[T any](entries []state.Entry, prefix string) (map[string]Stored[T], error) {
	out := make(map[string]Stored[T], len(entries))
	for _, e := range entries {
		value, err := state.Decode[T](e)
		if err != nil {
			return nil, err
		}
		out[strings.TrimPrefix(e.Key, prefix)] = Stored[T]{Value: value, Index: e.ModifyIndex}
	}
	return out, nil
}

// perNode decodes entries of <node>/<job> and returns them by job and node.
func perNode[T any](entries []state.Entry, prefix string) (map[string]map[string]T, error) {
	values, err := named[T](entries, prefix)
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
