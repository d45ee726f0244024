package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Runs returns the kept runs of a job.
func (b *Node) Runs(ctx context.Context, name string) ([]spec.Run, error) {
	store := b.storeFor(ctx)
	job, _, err := state.GetAs[spec.JobVersion](ctx, store, state.JobKey(name))
	if errors.Is(err, state.ErrNotFound) {
		return nil, api.Errorf(api.ErrNotFound, "no job named %q: `meshrun status` lists the jobs", name)
	}
	if err != nil {
		return nil, fmt.Errorf("read job %s: %w", name, err)
	}
	runs, err := readRuns(ctx, store, &job)
	slices.SortFunc(runs, func(x, y spec.Run) int {
		return cmp.Or(cmp.Compare(x.Process, y.Process), x.Tick.Compare(y.Tick), cmp.Compare(x.Epoch, y.Epoch))
	})
	if runs == nil {
		runs = []spec.Run{}
	}
	return runs, err
}

// readRuns returns the runs of a job's scheduled processes; a job without such
// ones costs no reading.
func readRuns(ctx context.Context, store state.Store, job *spec.JobVersion) ([]spec.Run, error) {
	if !slices.ContainsFunc(job.Job.Processes, func(p spec.Process) bool { return p.Schedule != nil }) {
		return nil, nil
	}
	entries, _, err := store.List(ctx, state.RunsPrefix+job.Job.Name+"/")
	if err != nil {
		return nil, fmt.Errorf("read runs of job %s: %w", job.Job.Name, err)
	}
	return state.DecodeAll[spec.Run](entries)
}
