package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// prepared runs a test with an engine that it starts itself.
func prepared(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer func() { r.close() }()
		test(t, r)
	})
}

// listens is a process whose check looks for a line of output.
func listens(name string, action spec.HealthAction) spec.AssignedProcess {
	p := serving(name, spec.Service{Name: "web"})
	h := spec.DefaultHealth("up")
	h.Log, h.Failures, h.OnFailure = "listening", 2, action
	p.Process.Health = []spec.Health{h}
	return p
}

// talk makes the output of every instance hold a line, or none.
func (r *rig) talk() *atomic.Bool {
	return &r.dog.listens
}

// told makes a list of the events that the engine emits.
func (r *rig) told() func() []string {
	events := r.agent.events
	return func() (out []string) {
		for len(events) > 0 {
			ev := <-events
			out = append(out, fmt.Sprintf("%s %s %s", ev.Severity, ev.Type, ev.Message))
		}
		return out
	}
}

// reported returns what the store says of an instance.
func (r *rig) reported(name string) (spec.Instance, uint64) {
	r.t.Helper()
	e, err := r.store.Get(r.t.Context(), state.ObservedKey("n1", id(name).Job))
	if errors.Is(err, state.ErrNotFound) {
		return spec.Instance{}, 0
	}
	var seen spec.Observed
	if err != nil || json.Unmarshal(e.Value, &seen) != nil {
		r.t.Fatal(err)
	}
	i := slices.IndexFunc(seen.Instances, func(i spec.Instance) bool { return i.ID == id(name) })
	if i < 0 {
		return spec.Instance{}, e.ModifyIndex
	}
	return seen.Instances[i], e.ModifyIndex
}

func (r *rig) wantHealth(name string, health spec.HealthState, state spec.ServiceState) spec.Instance {
	r.t.Helper()
	inst, _ := r.reported(name)
	var listed spec.ServiceState
	for _, e := range inst.Services {
		listed = e.State
	}
	if inst.Health != health || listed != state {
		r.t.Errorf("%s is %q and listed as %q, want %q and %q", name, inst.Health, listed, health, state)
	}
	return inst
}

func TestHealthIsReportedWhenItChangesAndOnlyThen(t *testing.T) {
	prepared(t, func(t *testing.T, r *rig) {
		said, told := r.talk(), r.told()
		r.start()
		r.assign("shop", listens("front", spec.HealthAlert))
		settled()
		r.wantHealth("shop/front/0", spec.HealthUnknown, spec.ServiceWarning)
		time.Sleep(time.Minute)
		inst := r.wantHealth("shop/front/0", spec.HealthFailing, spec.ServiceCritical)
		if len(inst.Checks) != 1 || inst.Checks[0].Output == "" || inst.RestartCause != "" {
			t.Errorf("its checks say %+v, and it is ailing for %q", inst.Checks, inst.RestartCause)
		}
		said.Store(true)
		time.Sleep(time.Minute)
		if inst = r.wantHealth("shop/front/0", spec.HealthPassing, spec.ServicePassing); inst.HealthSince.IsZero() {
			t.Error("nobody knows since when")
		}
		want(t, told(), []string{
			`warning instance.unhealthy shop/front/0 is unhealthy: check "up" fails: no line of output has matched yet`, "info instance.healthy shop/front/0 is healthy again",
		})
		_, before := r.reported("shop/front/0")
		time.Sleep(time.Hour)
		if _, after := r.reported("shop/front/0"); after != before {
			t.Error("a healthy instance was reported again")
		}
	})
}

func TestFailingCheckWithdrawsServicesOrAsksForARestart(t *testing.T) {
	prepared(t, func(t *testing.T, r *rig) {
		r.talk()
		r.start()
		r.assign("shop", listens("back", spec.HealthWithdraw), listens("front", spec.HealthRestart))
		settled()
		time.Sleep(time.Minute)
		r.wantHealth("shop/back/0", spec.HealthFailing, "")
		inst := r.wantHealth("shop/front/0", spec.HealthFailing, spec.ServiceCritical)
		if inst.RestartCause != `its check "up" fails` {
			t.Errorf("it is ailing for %q", inst.RestartCause)
		}
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/back/0"): 1, id("shop/front/0"): 1})
	})
}

func TestNextGenerationBeginsWithUnknownHealth(t *testing.T) {
	prepared(t, func(t *testing.T, r *rig) {
		said := r.talk()
		said.Store(true)
		r.start()
		r.assign("shop", listens("front", spec.HealthRestart))
		settled()
		time.Sleep(time.Minute)
		r.wantHealth("shop/front/0", spec.HealthPassing, spec.ServicePassing)
		said.Store(false)
		next := listens("front", spec.HealthRestart)
		next.Epochs = map[int]uint64{0: 1}
		r.assign("shop", next)
		settled()
		r.wantHealth("shop/front/0", spec.HealthUnknown, spec.ServiceWarning)
	})
}

func TestRestartedAgentGoesOnWithWhatWasFoundOut(t *testing.T) {
	prepared(t, func(t *testing.T, r *rig) {
		said, told := r.talk(), r.told()
		said.Store(true)
		r.start()
		r.assign("shop", listens("front", spec.HealthRestart))
		settled()
		time.Sleep(time.Minute)
		before := r.wantHealth("shop/front/0", spec.HealthPassing, spec.ServicePassing)
		_, index := r.reported("shop/front/0")
		r.stop()
		said.Store(false) // the line was found before, and is rotated away
		r.start()
		settled()
		time.Sleep(time.Minute)
		after := r.wantHealth("shop/front/0", spec.HealthPassing, spec.ServicePassing)
		if _, now := r.reported("shop/front/0"); !after.HealthSince.Equal(before.HealthSince) || now != index {
			t.Errorf("it is healthy since %s, was since %s, and was reported again: %t", after.HealthSince, before.HealthSince, now != index)
		}
		want(t, told(), nil)
	})
}

func TestExpiryReachesTheWatchdogAndRestartsNothingByItself(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("shop", proc("front", 0, 1))
		settled()
		p := proc("front", 0, 1)
		p.Expire = map[int]spec.Expire{1: {Generation: 1, Why: "its check fails"}}
		r.assign("shop", p)
		settled()
		r.dog.mu.Lock()
		defer r.dog.mu.Unlock()
		if e := r.dog.launches[id("shop/front/1")].Expire; e == nil || *e != p.Expire[1] {
			t.Errorf("shard 1 expires with %+v", e)
		}
		if e := r.dog.launches[id("shop/front/0")].Expire; e != nil {
			t.Errorf("shard 0 expires with %+v", e)
		}
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/front/0"): 1, id("shop/front/1"): 1})
	})
}

func TestGuardTellsOfWhatIsDownForTooLong(t *testing.T) {
	prepared(t, func(t *testing.T, r *rig) {
		told := r.told()
		r.start()
		p := proc("front", 0)
		p.Process.Critical = true
		p.Process.Guards = []spec.Guard{{
			Name: spec.GuardAbsent, For: spec.Duration(time.Minute), Interval: spec.Duration(5 * time.Second), Action: spec.GuardAlert,
		}}
		r.assign("shop", p)
		settled()
		r.dog.mu.Lock()
		down := r.dog.table[id("shop/front/0")]
		down.Phase, down.PID, down.StartTicks = spec.PhaseFailed, 0, 0
		r.dog.table[down.ID] = down
		r.dog.emit(spec.EventExhausted, down)
		r.dog.mu.Unlock()
		time.Sleep(50 * time.Second)
		want(t, told(), nil)
		time.Sleep(20 * time.Second)
		want(t, told(), []string{`critical instance.guard guard "absent" of shop/front/0: down for 1m`})
		inst, before := r.reported("shop/front/0")
		want(t, inst.Alerts, []string{`guard "absent": down for 1m`})
		time.Sleep(time.Hour)
		if _, after := r.reported("shop/front/0"); after != before {
			t.Error("an alert that lasts was reported again")
		}
		r.stop() // the next agent goes on with the alert, and tells nobody anew
		r.start()
		settled()
		for _, wait := range []time.Duration{time.Second, time.Hour} {
			time.Sleep(wait)
			inst, after := r.reported("shop/front/0")
			if after != before {
				t.Errorf("%s after the agent's restart it was reported again", wait)
			}
			want(t, inst.Alerts, []string{`guard "absent": down for 1m`})
		}
		want(t, told(), nil)
		r.dog.mu.Lock()
		up := down
		up.Phase, up.PID, up.StartTicks, up.Generation = spec.PhaseRunning, 1<<23, 2, 2
		r.dog.table[up.ID] = up
		r.dog.emit(spec.EventStarted, up)
		r.dog.mu.Unlock()
		time.Sleep(20 * time.Second)
		want(t, told(), []string{`info instance.guard guard "absent" of shop/front/0: within its bound again`})
		inst, before = r.reported("shop/front/0")
		want(t, inst.Alerts, nil)
		time.Sleep(time.Hour)
		if _, after := r.reported("shop/front/0"); after != before {
			t.Error("an instance that is up was reported again")
		}
	})
}

func TestAlertLastsAsLongAsWhatItIsAbout(t *testing.T) {
	front := id("shop/front/0")
	memory := spec.Guard{Name: spec.GuardMemory, Above: "512MiB", For: spec.Duration(time.Minute), Action: spec.GuardAlert}
	restart, absent := memory, spec.Guard{Name: spec.GuardAbsent, Action: spec.GuardAlert}
	restart.Action = spec.GuardRestart
	const big, down = `guard "memory": memory is 600 MiB, above 512MiB for 1m`, `guard "absent": down`
	guarded := func(guards ...spec.Guard) map[spec.InstanceID]*process {
		return map[spec.InstanceID]*process{front: {AssignedProcess: spec.AssignedProcess{Process: spec.Process{Guards: guards}}}}
	}
	for name, test := range map[string]struct {
		guard  spec.Guard
		then   func(v *view, a alarm)
		alerts []string
		ailing string
	}{
		"it lasts":             {memory, func(*view, alarm) {}, []string{big}, ""},
		"it asks for more":     {restart, func(*view, alarm) {}, []string{big}, `its guard "memory": memory is 600 MiB`},
		"it is over":           {memory, func(v *view, a alarm) { v.setAlarm(front, a, false) }, nil, ""},
		"another generation":   {restart, func(v *view, _ alarm) { v.apply(generation(front, 2)) }, nil, ""},
		"another action":       {restart, func(v *view, _ alarm) { v.setProcesses(guarded(memory)) }, nil, ""},
		"there and back again": {memory, func(v *view, _ alarm) { v.setProcesses(guarded()); v.setProcesses(guarded(memory)) }, nil, ""},
		"down, and again":      {absent, func(v *view, _ alarm) { v.apply(generation(front, 2)) }, []string{down}, ""},
		"down, and up at last": {absent, func(v *view, a alarm) { v.apply(generation(front, 2)); v.setAlarm(front, a, false) }, nil, ""},
		"gone": {absent, func(v *view, _ alarm) {
			v.apply(&spec.Event{Type: spec.EventRemoved, Instance: &spec.Instance{ID: front}})
			v.apply(generation(front, 1))
		}, nil, ""},
	} {
		v := newView("n1", &locks{})
		v.setProcesses(guarded(test.guard))
		v.apply(generation(front, 1))
		a := alarm{spec.GuardFinding{Guard: test.guard, Value: 600 << 20}, spec.Life{Generation: 1}}
		v.setAlarm(front, a, true)
		test.then(v, a)
		got := v.observed("shop").Instances[0]
		if !slices.Equal(got.Alerts, test.alerts) || got.RestartCause != test.ailing {
			t.Errorf("%s: it alerts of %q and is ailing for %q, want %q and %q", name, got.Alerts, got.RestartCause, test.alerts, test.ailing)
		}
	}
}

// generation tells that an instance is in a generation.
func generation(id spec.InstanceID, n uint64) *spec.Event {
	return &spec.Event{Type: spec.EventStarted, Instance: &spec.Instance{ID: id, Phase: spec.PhaseBackoff, Generation: n}}
}

func TestOutputOfAGenerationBeginsWithTheEndOfTheOneBefore(t *testing.T) {
	at := func(second int) time.Time { return time.Date(2026, 11, 24, 3, 0, second, 0, time.UTC) }
	for name, test := range map[string]struct {
		seen spec.Instance
		want time.Time
	}{
		"first":           {spec.Instance{Started: at(9), Since: at(8)}, at(8)},
		"restarted":       {spec.Instance{Started: at(9), Since: at(1), LastExit: &spec.Exit{At: at(7)}}, at(7)},
		"replaced":        {spec.Instance{Started: at(9), Since: at(5), LastExit: &spec.Exit{At: at(7)}}, at(7)},
		"nothing is told": {spec.Instance{Started: at(9)}, at(9)},
	} {
		if got := begun(&test.seen); !got.Equal(test.want) {
			t.Errorf("%s: it begins at %s, want %s", name, got, test.want)
		}
	}
}
