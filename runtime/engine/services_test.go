package engine

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// listed returns the services of what the engine shows.
func (r *rig) listed() (out []string) {
	for _, i := range r.Instances() {
		for _, e := range i.Services {
			text := fmt.Sprintf("%s %s %s", i.ID, e.Name, e.State)
			for _, tag := range e.Tags {
				text += " " + tag
			}
			if e.Port != 0 && e.Port != i.Ports["http"] {
				text += fmt.Sprintf(" at %d", e.Port)
			}
			if e.Port != 0 {
				text += " with its port"
			}
			out = append(out, text)
		}
	}
	return out
}

func serving(name string, services ...spec.Service) spec.AssignedProcess {
	p := proc(name, 0)
	p.Process.Ports = []spec.Port{{Name: "http"}}
	p.Process.Services = services
	return p
}

func TestServicesFollowTheAssignmentAndRestartNothing(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		web := spec.Service{Name: "web", Port: "http", Tags: []string{"v1"}}
		r.assign("shop", serving("front", web), serving("db"))
		settled()
		want(t, r.listed(), []string{"shop/front/0 web passing v1 with its port"})

		web.Tags = []string{"v2"}
		r.assign("shop", serving("front", web, spec.Service{Name: "admin"}), serving("db", spec.Service{Name: "sql"}))
		settled()
		want(t, r.listed(), []string{"shop/db/0 sql passing", "shop/front/0 web passing v2 with its port", "shop/front/0 admin passing"})
		want(t, r.dog.starts, map[spec.InstanceID]int{id("shop/front/0"): 1, id("shop/db/0"): 1})

		r.assign("shop", serving("front", web), serving("db"))
		settled()
		want(t, r.listed(), []string{"shop/front/0 web passing v2 with its port"})
		seen, err := r.store.Get(t.Context(), state.ObservedKey("n1", "shop"))
		if err != nil {
			t.Fatal(err)
		}
		observed, err := state.Decode[spec.Observed](seen)
		if err != nil || len(observed.Instances) != 2 || len(observed.Instances[1].Services) != 1 {
			t.Errorf("the store says %+v, %v", observed, err)
		}
	})
}

func TestServicesOfWhatEndsAreListedUntilItIsGone(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		r.assign("shop", serving("front", spec.Service{Name: "web"}))
		settled()
		r.dog.slow = true
		r.assign("shop")
		settled()
		want(t, r.listed(), []string{"shop/front/0 web warning"})
		r.dog.mu.Lock()
		r.dog.gone(id("shop/front/0"))
		r.dog.mu.Unlock()
		settled()
		want(t, r.listed(), nil)
	})
}

func TestServicesOfWhatIsHeldBackAreNotListedAndOfFaultyOnesAreCritical(t *testing.T) {
	within(t, func(t *testing.T, r *rig) {
		held, faulty := serving("held", spec.Service{Name: "web"}), serving("faulty", spec.Service{Name: "web", Port: "http"})
		held.Held = map[int]string{0: "waits for db"}
		faulty.Process.User = "nobody-here"
		r.assign("shop", held, faulty)
		settled()
		want(t, r.listed(), []string{"shop/faulty/0 web critical"})
	})
}

// A restarted agent must not take for listed nowhere what it has not read yet.
func TestServicesAreKnownOnceTheEngineHasSettled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.assign("shop", serving("front", spec.Service{Name: "web"}))
		r.dog.setAway(true)
		r.start()
		defer func() { r.close() }()
		done := make(chan error, 1)
		go func() { done <- r.WaitSettled(t.Context()) }()
		settled()
		if len(done) > 0 {
			t.Error("it has settled without its watchdog")
		}
		r.dog.setAway(false)
		time.Sleep(2 * lastRetry)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		settled()
		want(t, r.listed(), []string{"shop/front/0 web passing"})
	})
}

func TestOfAShardAssignedTwiceTheNewerVersionIsListed(t *testing.T) {
	p := func(version uint64, service string) *process {
		a := serving("front", spec.Service{Name: service})
		a.Version = version
		return &process{AssignedProcess: a}
	}
	processes := []*process{p(2, "two"), p(3, "three"), p(1, "one")}
	for range 2 {
		got := processesOf(map[string]*assigned{"shop": {processes: processes}})
		if s := got[id("shop/front/0")].services(); len(got) != 1 || len(s) != 1 || s[0].Name != "three" {
			t.Errorf("got %v", got)
		}
		slices.Reverse(processes)
	}
}
