package plan

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/runtime/orchestrator"
	"github.com/synergymesh/meshrun/spec"
)

// spot is an instance on a node.
type spot struct {
	node string
	id   spec.InstanceID
}

// unit is an instance in the model.
type unit struct {
	seen spec.Instance
	def  *spec.Process // what it was last declared as; nil if that isn't known
	// fresh is set if the model started it and nothing has asked for its hash:
	// making one for every process of a new job is a third of its plan.
	fresh bool
}

// definition names a process as one version of the job defines it.
type definition struct {
	process string
	version uint64
}

// deed is what the model did to an instance on a node.
type deed struct {
	action  spec.InstanceAction
	changes []spec.Change
	ordered bool   // by an operator's epoch
	waited  string // what it was held for before
	failed  string // how it had ended for good before
	stopped string // why it was stopped before
	follows string // why its generation was ended
}

// model is a job on its nodes, with instances that do what they are told and
// stay healthy.
type model struct {
	job       string
	next      *spec.JobVersion
	nodes     []spec.Node
	live      map[string]bool
	placement *spec.Placement
	assigned  map[string]spec.Assignment
	units     map[spot]*unit
	reasons   map[spec.InstanceID]string
	rollout   *spec.Rollout
	runs      []spec.Run

	lost map[spec.InstanceID]string // nodes that are gone with an instance
	born uint64                     // the last generation

	deeds  map[spot]*deed
	held   map[spot]string // what each was first held for
	hashes map[definition]string
	now    time.Time
}

// live returns the nodes that are there.
func (s *Snapshot) live() map[string]bool {
	live := make(map[string]bool, len(s.Nodes))
	for _, n := range s.Nodes {
		live[n.Name] = true
	}
	return live
}

// newModel puts the next version of a job in the place of the present one.
func newModel(s *Snapshot, j *part, now time.Time) *model {
	job := j.wanted.Job
	m := &model{
		job: job, next: j.next, nodes: s.Nodes, live: s.live(), placement: j.placement, assigned: maps.Clone(s.Assignments[job]), units: map[spot]*unit{},
		lost: map[spec.InstanceID]string{}, runs: slices.Clone(s.Runs[job]), deeds: map[spot]*deed{}, held: map[spot]string{}, hashes: map[definition]string{}, now: now,
	}
	if was, ok := s.Rollouts[job]; ok {
		m.rollout = &was.Value
	}
	for node, o := range s.Observed[job] {
		if !m.live[node] {
			continue
		}
		for _, in := range o.Instances {
			if in.Phase == spec.PhasePending {
				continue // nothing was ever started
			}
			u := &unit{seen: in}
			u.settle()
			m.born = max(m.born, in.Generation)
			m.units[spot{node, in.ID}] = u
		}
	}
	for node, a := range m.assigned {
		for i := range a.Processes {
			p := &a.Processes[i]
			for _, shard := range p.Shards {
				if !m.live[node] {
					m.lost[m.id(p.Process.Name, shard)] = node
				}
				if u := m.units[spot{node, m.id(p.Process.Name, shard)}]; u != nil {
					u.def = &p.Process
				}
			}
		}
	}
	return m
}

// down reports whether nothing happens in this phase until somebody asks for it.
func down(p spec.Phase) bool { return p == spec.PhaseCompleted || p == spec.PhaseFailed }

func (m *model) id(process string, shard int) spec.InstanceID {
	return spec.InstanceID{Job: m.job, Process: process, Shard: shard}
}

// settle makes an instance what it will be soon: up, healthy, and so for long.
func (u *unit) settle() {
	if !down(u.seen.Phase) {
		u.seen.Phase = spec.PhaseRunning
	}
	u.seen.Health, u.seen.Checks, u.seen.RestartCause = "", nil, ""
	u.seen.ReadyAt, u.seen.Since = time.Time{}, time.Time{}
}

// maxDecisions bounds how often the orchestrator decides before nodes act.
const maxDecisions = 8

// decide lets the orchestrator decide, until it has no more to say, and reports
// whether that changed anything.
func (m *model) decide(together map[string]*model) bool {
	others := map[string]orchestrator.Other{}
	for _, name := range orchestrator.Needs(m.next, m.assigned) {
		if o := together[name]; o != nil {
			others[name] = orchestrator.Other{Job: o.next, Placement: o.placement, Observed: o.observed()}
		}
	}
	s := orchestrator.Snapshot{
		Job: m.next, Placement: m.placement, Live: m.live, Current: m.assigned, Observed: m.observed(), Others: others, Rollout: m.rollout, Runs: m.runs,
	}
	for n := range maxDecisions {
		decision := orchestrator.Rollout(s, m.now)
		moved := len(s.Current) != len(decision.Assignments) || !reflect.DeepEqual(s.Current, decision.Assignments)
		s.Current, s.Rollout = decision.Assignments, decision.Rollout
		m.assigned, m.rollout, m.reasons = decision.Assignments, decision.Rollout, decision.Reasons
		m.record(decision.Runs)
		if s.Runs = m.runs; !moved && len(decision.Runs) == 0 {
			return n > 0
		}
	}
	return true
}

// record takes over what is recorded of runs. One that began stays under way, as
// it is when the plan has been applied.
func (m *model) record(changes []orchestrator.RunChange) {
	for _, c := range changes {
		same := func(run spec.Run) bool { return run.Process == c.Run.Process && run.ID == c.Run.ID }
		m.runs = slices.DeleteFunc(m.runs, same)
		if !c.Forget {
			m.runs = append(m.runs, c.Run)
		}
	}
}

func (m *model) wantedShards() int {
	n := 0
	if m.next != nil {
		for _, p := range m.next.Job.Processes {
			n += p.Instances()
		}
	}
	return n
}

func (m *model) observed() map[string]spec.Observed {
	out := map[string]spec.Observed{}
	for where, u := range m.units {
		o := out[where.node]
		o.Job, o.Node = m.job, where.node
		o.Instances = append(o.Instances, u.seen)
		out[where.node] = o
	}
	return out
}

// act does on the nodes what is assigned, and reports whether that was anything.
func (m *model) act() bool {
	acted := false
	told := map[spot]bool{}
	for node, a := range m.assigned {
		if !m.live[node] {
			continue
		}
		for i := range a.Processes {
			p := &a.Processes[i]
			for _, shard := range p.Shards {
				where := spot{node, m.id(p.Process.Name, shard)}
				told[where] = true
				if why, held := p.Held[shard]; held {
					if m.held[where] == "" {
						m.held[where] = why
					}
					continue
				}
				acted = m.declare(where, p) || acted
			}
		}
	}
	for where := range m.units {
		if !told[where] {
			delete(m.units, where)
			d := m.deed(where)
			d.action, d.stopped = spec.ActionStop, m.reasons[where.id]
			acted = true
		}
	}
	return acted
}

// declare gives a node one shard to run, as its watchdog would take it.
func (m *model) declare(where spot, p *spec.AssignedProcess) bool {
	u := m.units[where]
	epoch := p.Epochs[where.id.Shard]
	if u == nil {
		u = &unit{def: &p.Process, seen: spec.Instance{ID: where.id, Phase: spec.PhaseRunning, Version: p.Version, Epoch: epoch}}
		if u.fresh = m.next != nil && p.Version == m.next.Version; !u.fresh {
			u.seen.Hash = m.hash(p) // Rollout compares it with the next version's
		}
		m.units[where] = u
		m.start(u)
		d := m.deed(where)
		if d.action == spec.ActionStop { // and back again
			d.action = spec.ActionRestart
			return true
		}
		d.action, d.waited = spec.ActionStart, m.held[where]
		return true
	}
	e := p.Expire[where.id.Shard]
	expired := e.Generation != 0 && e.Generation == u.seen.Generation && !down(u.seen.Phase)
	if expired {
		m.start(u)
		if d := m.deed(where); d.action != spec.ActionStart {
			d.action, d.follows = spec.ActionRestart, e.Why
		}
	}
	if u.seen.Version == p.Version && u.seen.Epoch == epoch {
		u.def = &p.Process
		return expired
	}
	m.change(where, u, p, epoch)
	u.def = &p.Process
	u.seen.Version, u.seen.Epoch = p.Version, epoch
	return true
}

// start begins a generation.
func (m *model) start(u *unit) {
	m.born++
	u.seen.Generation, u.seen.Started, u.seen.Phase = m.born, time.Time{}, spec.PhaseRunning
}

// change notes what another definition does to an instance that is there.
func (m *model) change(where spot, u *unit, p *spec.AssignedProcess, epoch uint64) {
	d := m.deed(where)
	if u.def != nil {
		d.changes = spec.DiffProcess(u.def, &p.Process)
	}
	hash := m.hash(p)
	if u.fresh {
		u.seen.Hash, u.fresh = spec.ReplaceHash(u.def), false
	}
	d.ordered = d.ordered || u.seen.Epoch != epoch
	switch {
	case d.action == spec.ActionStart: // with an old definition, for as long as the new one is on trial
		if u.seen.Hash != hash || u.seen.Epoch != epoch {
			m.start(u)
		}
		u.seen.Hash = hash
	case u.seen.Hash != hash || u.seen.Epoch != epoch:
		d.action, d.waited = spec.ActionRestart, m.held[where]
		if down(u.seen.Phase) {
			d.action, d.failed = spec.ActionStart, ending(&u.seen)
		}
		m.start(u)
		u.seen.Hash = hash
	case d.action == spec.ActionRestart: // which says it all
	case down(u.seen.Phase) || !touches(d.changes):
		d.action = spec.ActionKeep
	case u.def != nil && spec.MaxEffect(d.changes) == spec.EffectReload:
		d.action = spec.ActionReload
	default:
		d.action = spec.ActionUpdate
	}
}

// touches reports whether changes matter to an instance that goes on: the
// number of shards, what it would wait for and where it might be do not.
func touches(changes []spec.Change) bool {
	return slices.ContainsFunc(changes, func(c spec.Change) bool {
		return c.Path != "shards" && !strings.HasPrefix(c.Path, "depends_on.") && !strings.HasPrefix(c.Path, "placement.")
	})
}

// ending tells how an instance ended for good.
func ending(in *spec.Instance) string {
	text := string(in.Phase)
	if in.LastExit != nil {
		text += " (" + in.LastExit.String() + ")"
	}
	return text
}

func (m *model) deed(where spot) *deed {
	if m.deeds[where] == nil {
		m.deeds[where] = &deed{}
	}
	return m.deeds[where]
}

// hash returns a definition's ReplaceHash, made once.
func (m *model) hash(p *spec.AssignedProcess) string {
	key := definition{p.Process.Name, p.Version}
	if m.hashes[key] == "" {
		m.hashes[key] = spec.ReplaceHash(&p.Process)
	}
	return m.hashes[key]
}
