package engine

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/synergymesh/meshrun/runtime/engine/guard"
	"github.com/synergymesh/meshrun/runtime/engine/health"
	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// gatherFor is how long changes of what runs are gathered before checks follow.
const gatherFor = 20 * time.Millisecond

// checks has the checks and guards of what runs run, and the view show what
// they find. While no process has any, it does nothing.
type checks struct {
	engine *Engine
	health *health.Runner
	guards *guard.Runner
	wake   loop.Signal

	// What follows belongs to run's goroutine.
	made map[spec.InstanceID]*examined
	busy bool // there are targets
}

// examined are the targets of an instance with what they were made of.
type examined struct {
	process *process
	life    spec.Life
	phase   spec.Phase
	health  *health.Target // nil if there is nothing to check
	guards  *guard.Target
}

func newChecks(e *Engine) *checks {
	c := &checks{engine: e, wake: loop.NewSignal(), made: map[spec.InstanceID]*examined{}}
	c.health = health.New(health.Config{Found: c.found, Host: e.cfg.Watchdog})
	c.guards = guard.New(guard.Config{Alarm: c.alarm, Logger: e.logger})
	return c
}

func (c *checks) wakeUp() { c.wake.Set() }

// run follows what runs until ctx is done.
func (c *checks) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.health.Run(ctx) })
	wg.Go(func() { c.guards.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.wake:
		}
		c.update(time.Now())
		_ = loop.Sleep(ctx, gatherFor)
	}
}

// update tells the runners what runs now.
func (c *checks) update(now time.Time) {
	jobs, read := c.engine.assignments.current()
	if !read || (!c.busy && !checked(jobs)) {
		return
	}
	// Only then is known what an earlier agent found out.
	if !c.engine.view.isSettled() {
		return
	}
	running, synced := c.engine.view.running()
	if !synced {
		return
	}
	processes := processesOf(jobs)
	made := make(map[spec.InstanceID]*examined, len(c.made))
	var targets []*health.Target
	var guarded []*guard.Target
	for i := range running {
		inst := &running[i]
		p := processes[inst.ID]
		if p == nil || len(p.Process.Health)+len(p.Process.Guards) == 0 {
			continue
		}
		e := c.made[inst.ID]
		if e == nil || e.process != p || e.life != inst.Life() || e.phase != inst.Phase {
			e = c.examine(p, inst)
		}
		made[inst.ID] = e
		if e.health != nil {
			targets = append(targets, e.health)
		}
		if e.guards != nil {
			guarded = append(guarded, e.guards)
		}
	}
	c.made, c.busy = made, len(made) > 0
	c.health.Set(targets, now)
	c.guards.Set(guarded, now)
}

// checked reports whether anything has checks or guards.
func checked(jobs map[string]*assigned) bool {
	for _, job := range jobs {
		for _, p := range job.processes {
			if len(p.Process.Health)+len(p.Process.Guards) > 0 {
				return true
			}
		}
	}
	return false
}

// examine makes the targets of an instance.
func (c *checks) examine(p *process, inst *spec.Instance) *examined {
	e := &examined{process: p, life: inst.Life(), phase: inst.Phase}
	up := inst.PID != 0 && (inst.Phase == spec.PhaseStarting || inst.Phase == spec.PhaseRunning)
	if len(p.Process.Health) > 0 && up {
		e.health = c.target(p, inst)
	}
	if len(p.Process.Guards) > 0 {
		e.guards = &guard.Target{
			ID: inst.ID, Life: e.life, Guards: p.Process.Guards, Known: c.engine.view.alarms(inst.ID, e.life),
			Down: inst.Phase == spec.PhaseBackoff || inst.Phase == spec.PhaseFailed,
		}
		if up {
			e.guards.PID = inst.PID
		}
	}
	return e
}

// target fills in the checks of an instance.
func (c *checks) target(p *process, inst *spec.Instance) *health.Target {
	host := &c.engine.cfg.Host
	x := expander{host: host, run: spec.Runtime{
		ShardIndex: inst.ID.Shard, ShardCount: p.Process.Shards,
		NodeName: host.Node, NodeLabels: host.Labels, Ports: inst.Ports,
	}}
	t := &health.Target{
		ID: inst.ID, Life: inst.Life(), Started: inst.Started, Since: begun(inst), Ready: inst.Phase == spec.PhaseRunning,
		Checks: make([]spec.Health, len(p.Process.Health)), User: p.Process.User, Known: c.engine.view.health(inst.ID),
	}
	runs := false
	for i := range p.Process.Health {
		t.Checks[i] = x.health(&p.Process.Health[i])
		if hides(&p.Process, &p.Process.Health[i]) {
			t.Hidden = append(t.Hidden, t.Checks[i].Name)
		}
		runs = runs || len(t.Checks[i].Command) > 0
	}
	if runs {
		given := Given{Ports: inst.Ports}
		if p.Process.Exclusive {
			lock, _ := c.engine.locks.token(inst.ID)
			given.Token = lock.token
		}
		account, err := host.Account(userName(p.Process.User))
		if err != nil && x.err == nil {
			x.err = fmt.Errorf("look up user: %w", err)
		}
		t.Dir = x.dir(&p.Process)
		t.Env = x.env(&p.Process, inst.ID, given, account)
	}
	if x.err != nil {
		t.Fault = x.err.Error()
	}
	return t
}

// begun returns from when on output is that of an instance's generation: from the
// end of the one before, or else from its declaration.
func begun(inst *spec.Instance) time.Time {
	switch {
	case inst.LastExit != nil && inst.LastExit.At.Before(inst.Started):
		return inst.LastExit.At
	case !inst.Since.IsZero() && inst.Since.Before(inst.Started):
		return inst.Since
	}
	return inst.Started
}

// health returns a check with its templates filled in.
func (x *expander) health(h *spec.Health) spec.Health {
	out := *h
	path := "health." + h.Name
	for _, f := range []struct {
		name string
		text *spec.Template
	}{{"url", &out.URL}, {"tcp", &out.TCP}, {"grpc", &out.GRPC}} {
		*f.text = spec.Literal(x.text(*f.text, path+"."+f.name))
	}
	out.Command = make([]spec.Template, len(h.Command))
	for i, arg := range h.Command {
		out.Command[i] = spec.Literal(x.text(arg, path+".command["+strconv.Itoa(i)+"]"))
	}
	out.Headers = make(map[string]spec.Template, len(h.Headers))
	for name, value := range h.Headers {
		out.Headers[name] = spec.Literal(x.text(value, path+".headers."+name))
	}
	return out
}

// hides reports whether what goes wrong with a check would tell what is sensitive.
func hides(p *spec.Process, h *spec.Health) bool {
	path := "health." + h.Name
	for _, of := range []string{".url", ".tcp", ".grpc", ".ca_file", ".command[0]"} {
		if p.Hides(path + of) {
			return true
		}
	}
	return len(h.Command) > 0 && (p.Hides("dir") || p.Hides("user") || p.Hides("env.PATH"))
}

// found shows what the checks of an instance say, and tells when it has become
// unhealthy, and when that is over.
func (c *checks) found(t *health.Target, f health.Finding) {
	before, inst := c.engine.view.setHealth(t.ID, f)
	c.engine.report.wakeUp()
	was := spec.HealthUnknown
	if before != nil && before.Life == f.Life {
		was = before.Health
	}
	ev := spec.Event{Type: spec.EventHealthy, Severity: spec.Info, Message: fmt.Sprintf("%s is healthy again", t.ID)}
	switch {
	case inst == nil || was == f.Health:
		return
	case f.Health == spec.HealthFailing:
		ev.Type, ev.Severity, ev.Message = spec.EventUnhealthy, severity(inst), fmt.Sprintf("%s is unhealthy: %s", t.ID, failing(&f))
	case was != spec.HealthFailing || f.Health != spec.HealthPassing:
		return
	}
	c.emit(ev, inst)
}

// maxSaid bounds what an event quotes of a check's answer: all of it can be
// seen at the instance.
const maxSaid = 120

// failing tells which checks fail, and what they say.
func failing(f *health.Finding) string {
	var all []string
	for _, r := range f.Checks {
		if r.State != spec.HealthFailing {
			continue
		}
		text := fmt.Sprintf("check %q fails", r.Name)
		if said, _, _ := strings.Cut(strings.TrimSpace(r.Output), "\n"); said != "" {
			text += ": " + strings.ToValidUTF8(said[:min(len(said), maxSaid)], "")
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// alarm shows and tells what a guard says.
func (c *checks) alarm(a guard.Alarm) {
	inst := c.engine.view.setAlarm(a.Target.ID, alarm{GuardFinding: a.GuardFinding, life: a.Target.Life}, a.Over)
	c.engine.report.wakeUp()
	if inst == nil {
		return
	}
	ev := spec.Event{Type: spec.EventGuard, Severity: spec.Info, Message: fmt.Sprintf("guard %q of %s: within its bound again", a.Guard.Name, a.Target.ID)}
	if a.Over {
		ev.Severity, ev.Message = severity(inst), fmt.Sprintf("guard %q of %s: %s", a.Guard.Name, a.Target.ID, &a.GuardFinding)
	}
	c.emit(ev, inst)
}

// severity of what is wrong with an instance.
func severity(inst *spec.Instance) spec.Severity {
	if inst.Critical {
		return spec.Critical
	}
	return spec.Warning
}

func (c *checks) emit(ev spec.Event, inst *spec.Instance) {
	ev.Time, ev.Node, ev.Job, ev.Version, ev.Who, ev.Instance = time.Now(), c.engine.cfg.Host.Node, inst.ID.Job, inst.Version, "engine", inst
	c.engine.cfg.Agent.Emit(ev)
}
