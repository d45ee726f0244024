package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/plan"
	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// Plan says what an apply of the request would do.
func (b *Node) Plan(ctx context.Context, req api.PlanRequest) (spec.Plan, error) {
	p, err := b.compute(ctx, req)
	if err != nil {
		return spec.Plan{}, err
	}
	for i := range p.Jobs {
		if err := b.cipher.encrypt(&p.Jobs[i]); err != nil {
			return spec.Plan{}, err
		}
	}
	return p, nil
}

// PlanAndApply does what Plan would say of the request.
func (b *Node) PlanAndApply(ctx context.Context, req api.PlanRequest) (api.Done, error) {
	p, err := b.compute(ctx, req)
	if err != nil {
		return api.Done{}, err
	}
	done := api.Done{Plan: p, Result: api.ApplyResult{Index: p.Index, Applied: []string{}}}
	if p.Empty() {
		return done, nil
	}
	if done.Result, err = b.commit(ctx, p); err != nil {
		return api.Done{}, err
	}
	for i := range p.Jobs {
		leaveNames(&p.Jobs[i])
	}
	return done, nil
}

// leaveNames leaves of the version in a plan what names it: the job, with its
// sensitive values, has been written and needs no showing.
func leaveNames(p *spec.JobPlan) {
	if p.Wanted == nil {
		return
	}
	named := *p.Wanted
	named.Job = spec.Job{Name: named.Job.Name}
	p.Wanted = &named
}

// compute makes a plan that is not encrypted.
func (b *Node) compute(ctx context.Context, req api.PlanRequest) (spec.Plan, error) {
	snapshot, err := plan.Load(ctx, b.storeFor(ctx), b.cfg.Node)
	if err != nil {
		return spec.Plan{}, fmt.Errorf("read state: %w", err)
	}
	snapshot.Grace = b.cfg.Grace
	if err := b.look(ctx, &snapshot); err != nil {
		return spec.Plan{}, err
	}
	wanted, err := b.wanted(ctx, &snapshot, req)
	if err != nil {
		return spec.Plan{}, err
	}
	p, err := plan.Compute(snapshot, wanted, time.Now())
	if err != nil {
		return spec.Plan{}, planError(err)
	}
	p.Node = b.cfg.Node
	return p, nil
}

// look puts what this node sees now in the place of what it last reported,
// which may be a tenth of a second old.
func (b *Node) look(ctx context.Context, s *plan.Snapshot) error {
	instances, _, err := b.cfg.Engine.WaitInstances(ctx, 0)
	if err != nil {
		return fmt.Errorf("look at instances: %w", err)
	}
	for _, i := range instances {
		nodes := s.Observed[i.ID.Job]
		if nodes == nil {
			nodes = map[string]spec.Observed{}
			s.Observed[i.ID.Job] = nodes
		}
		seen := nodes[b.cfg.Node]
		seen.Job, seen.Node = i.ID.Job, b.cfg.Node
		seen.Instances = append(seen.Instances, i)
		nodes[b.cfg.Node] = seen
	}
	return nil
}

// planError gives an error of package plan the API's words.
func planError(err error) error {
	switch {
	case errors.Is(err, plan.ErrUnknown):
		return api.Errorf(api.ErrNotFound, "%s", strings.TrimSuffix(err.Error(), ": "+plan.ErrUnknown.Error()))
	case errors.Is(err, plan.ErrInvalid):
		return api.Errorf(api.ErrInvalid, "%s", strings.TrimSuffix(err.Error(), ": "+plan.ErrInvalid.Error()))
	}
	return err
}

// wanted turns a request into one change for each job.
func (b *Node) wanted(ctx context.Context, s *plan.Snapshot, req api.PlanRequest) ([]plan.Wanted, error) {
	var out []plan.Wanted
	var held []string
	for _, j := range req.Jobs {
		held = append(held, j.Job.Name)
		out = append(out, plan.Wanted{Job: j.Job.Name, Apply: &j.Job, Source: j.Source, Who: req.Who})
	}
	remove := append(plan.Removed(s, held, req.Paths), req.Remove...)
	slices.Sort(remove)
	for _, name := range slices.Compact(remove) {
		out = append(out, plan.Wanted{Job: name, Remove: true, Who: req.Who})
	}
	for _, r := range req.Rollbacks {
		w, err := b.rollback(ctx, s, r)
		if err != nil {
			return nil, err
		}
		w.Who = req.Who
		out = append(out, w)
	}
	return orders(out, req)
}

// orders adds a request's orders, those for one job together.
func orders(out []plan.Wanted, req api.PlanRequest) ([]plan.Wanted, error) {
	byJob := map[string]int{}
	for _, o := range req.Orders {
		t, err := api.ParseTarget(o.Target)
		if err != nil {
			return nil, err
		}
		at, ok := byJob[t.Job]
		if !ok {
			at = len(out)
			byJob[t.Job] = at
			out = append(out, plan.Wanted{Job: t.Job, Who: req.Who})
		}
		out[at].Orders = append(out[at].Orders, plan.Order{Op: o.Op, Process: t.Process, Shard: t.Shard, Count: o.Count})
	}
	return out, nil
}

// rollback finds the version to bring back.
func (b *Node) rollback(ctx context.Context, s *plan.Snapshot, r api.Rollback) (plan.Wanted, error) {
	version, what := r.Version, "rollback"
	if version == 0 && r.Good {
		var err error
		if version, err = good(s, r.Job); err != nil {
			return plan.Wanted{}, err
		}
		what = "revert"
	}
	if version == 0 {
		var err error
		if version, err = b.earlier(ctx, s, r.Job); err != nil {
			return plan.Wanted{}, err
		}
	}
	entry, err := b.storeFor(ctx).Get(ctx, state.HistoryKey(r.Job, version))
	if errors.Is(err, state.ErrNotFound) {
		return plan.Wanted{}, api.Errorf(api.ErrNotFound, "job %q has no version %d: `meshrun history %s` lists them", r.Job, version, r.Job)
	}
	if err != nil {
		return plan.Wanted{}, fmt.Errorf("read version %d of job %s: %w", version, r.Job, err)
	}
	v, err := state.Decode[spec.JobVersion](entry)
	if err != nil {
		return plan.Wanted{}, err
	}
	return plan.Wanted{Job: r.Job, Apply: &v.Job, Source: v.Source, Revert: r.Good, Why: fmt.Sprintf("%s to version %d", what, version)}, nil
}

// earlier returns the last version before the current one that defines the job
// otherwise: an order makes a version, too, and to go back over that alone would
// change nothing.
func (b *Node) earlier(ctx context.Context, s *plan.Snapshot, job string) (uint64, error) {
	entries, _, err := b.storeFor(ctx).List(ctx, state.HistoryPrefix+job+"/")
	if err != nil {
		return 0, fmt.Errorf("read versions of job %s: %w", job, err)
	}
	versions, err := state.DecodeAll[spec.JobVersion](entries)
	if err != nil {
		return 0, err
	}
	current, ok := s.Jobs[job]
	switch {
	case !ok && len(versions) == 0:
		return 0, api.Errorf(api.ErrNotFound, "no job was ever named %q", job)
	case !ok:
		return 0, api.Errorf(api.ErrNotFound, "job %q was removed: `meshrun history %s` lists its versions, and `meshrun rollback %s VERSION` brings one back", job, job, job)
	}
	var last uint64
	for i := range versions {
		if v := &versions[i]; v.Version < current.Value.Version && v.Checksum != current.Value.Checksum {
			last = max(last, v.Version)
		}
	}
	if last == 0 {
		return 0, api.Errorf(api.ErrNotFound, "job %q has no earlier version that is another one: `meshrun history %s` lists them", job, job)
	}
	return last, nil
}

// Apply does what a plan of this agent says.
func (b *Node) Apply(ctx context.Context, p spec.Plan) (api.ApplyResult, error) {
	if p.Format != spec.PlanFormat {
		return api.ApplyResult{}, fmt.Errorf("the plan has format %d, this agent reads %d: plan again: %w", p.Format, spec.PlanFormat, api.ErrInvalid)
	}
	for i := range p.Jobs {
		if err := b.cipher.decrypt(&p.Jobs[i]); err != nil {
			if p.Node != "" && p.Node != b.cfg.Node {
				err = fmt.Errorf("the plan was made by the agent of node %s, and this is %s: apply it there, or plan again", p.Node, b.cfg.Node)
			}
			return api.ApplyResult{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
		}
	}
	return b.commit(ctx, p)
}

// commit writes what a plan with whole versions says.
func (b *Node) commit(ctx context.Context, p spec.Plan) (result api.ApplyResult, err error) {
	txns, err := plan.Ops(p, api.Who(ctx), time.Now())
	if err != nil {
		return result, planError(err)
	}
	for i, ops := range txns {
		result.Index, err = b.storeFor(ctx).Txn(ctx, ops...)
		if errors.Is(err, state.ErrConflict) {
			return result, stale(err, i, len(txns))
		}
		if err != nil {
			return result, fmt.Errorf("apply plan: %w%s", err, done(i, len(txns)))
		}
	}
	for _, job := range p.Jobs {
		if job.Action != spec.JobKeep {
			result.Applied = append(result.Applied, job.Job)
		}
	}
	return result, nil
}

func stale(err error, at, of int) error {
	return &api.Error{
		Message: fmt.Sprintf("the plan is stale: the state has changed since it was made (%v)%s", err, done(at, of)),
		Code:    "stale", Hint: "plan again",
	}
}

// done says how far an apply came before it failed.
func done(at, of int) string {
	if at == 0 {
		return "; nothing was changed"
	}
	return fmt.Sprintf("; %d of its %d parts had been applied", at, of)
}
