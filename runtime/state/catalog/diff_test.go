package catalog

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

const web = "meshrun/n1/shop/web/0/web"

func passing(id string) Service {
	return Service{ID: id, Name: "web", Check: Check{State: spec.ServicePassing}}
}

func byID(services ...Service) map[string]Service {
	out := map[string]Service{}
	for _, s := range services {
		out[s.ID] = s
	}
	return out
}

func TestDiffDoesWhatDiffersAndNothingElse(t *testing.T) {
	full := Service{
		ID: web, Name: "web", Address: "10.0.0.1", Port: 80, Tags: []string{"a", "b"}, Meta: map[string]string{"job": "shop"},
		Check: Check{State: spec.ServicePassing},
	}
	with := func(change func(*Service)) Service {
		s := full
		change(&s)
		return s
	}
	ill := with(func(s *Service) { s.Check = Check{spec.ServiceCritical, "backoff: exit 1"} })
	for name, c := range map[string]struct {
		wanted, listed []Service
		want           Actions
	}{
		"nothing":             {},
		"the same":            {[]Service{full}, []Service{full}, Actions{}},
		"new":                 {[]Service{full}, nil, Actions{Register: []Service{full}}},
		"gone":                {nil, []Service{full}, Actions{Deregister: []string{web}}},
		"ill":                 {[]Service{ill}, []Service{full}, Actions{Report: []Service{ill}}},
		"ill for another why": {[]Service{ill}, []Service{with(func(s *Service) { s.Check = Check{spec.ServiceCritical, ""} })}, Actions{Report: []Service{ill}}},
		"another name":        {[]Service{full}, []Service{with(func(s *Service) { s.Name = "x" })}, Actions{Register: []Service{full}}},
		"another address":     {[]Service{full}, []Service{with(func(s *Service) { s.Address = "" })}, Actions{Register: []Service{full}}},
		"another port":        {[]Service{full}, []Service{with(func(s *Service) { s.Port = 81 })}, Actions{Register: []Service{full}}},
		"another tag":         {[]Service{full}, []Service{with(func(s *Service) { s.Tags = s.Tags[:1] })}, Actions{Register: []Service{full}}},
		"another job":         {[]Service{full}, []Service{with(func(s *Service) { s.Meta = nil })}, Actions{Register: []Service{full}}},
		"without its check":   {[]Service{full}, []Service{with(func(s *Service) { s.Check = Check{} })}, Actions{Register: []Service{full}}},
		"another tag, and ill": {[]Service{ill}, []Service{with(func(s *Service) { s.Tags = nil })},
			Actions{Register: []Service{ill}}},
		"no tags, either way": {[]Service{with(func(s *Service) { s.Tags = nil })}, []Service{with(func(s *Service) { s.Tags = []string{} })}, Actions{}},
		"others":              {nil, []Service{passing("web"), passing("meshrun/n2/shop/web/0/web"), passing("meshrun-agent/n2")}, Actions{}},
		"wanted under another's ID": {
			[]Service{passing("meshrun/n2/shop/web/0/web")}, nil, Actions{},
		},
	} {
		if got := Diff(c.wanted, byID(c.listed...), Mine("n1")); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
}

// However the list is, doing the difference makes mine what is wanted, leaves
// others as they are, and leaves nothing to do.
func TestDoneTheDifferenceIsGone(t *testing.T) {
	ids := []string{web, "meshrun/n1/shop/web/1/web", "meshrun-agent/n1", "meshrun-agent/n2", "meshrun/n2/shop/web/0/web", "db"}
	draw := func(t *rapid.T, what string) (out []Service) {
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 0, len(ids), rapid.ID).Draw(t, what) {
			s := passing(id)
			s.Port = rapid.IntRange(0, 1).Draw(t, "port")
			s.Check.State = rapid.SampledFrom([]spec.ServiceState{spec.ServicePassing, spec.ServiceCritical}).Draw(t, "state")
			out = append(out, s)
		}
		return out
	}
	rapid.Check(t, func(t *rapid.T) {
		mine := Mine("n1")
		wanted, before := draw(t, "wanted"), byID(draw(t, "listed")...)
		after := byID()
		for id, s := range before {
			after[id] = s
		}
		a := Diff(wanted, before, mine)
		for _, id := range a.Deregister {
			delete(after, id)
		}
		for _, s := range slices.Concat(a.Register, a.Report) {
			after[s.ID] = s
		}
		if rest := Diff(wanted, after, mine); !reflect.DeepEqual(rest, Actions{}) {
			t.Fatalf("left to do: %+v", rest)
		}
		want := byID(wanted...)
		for _, id := range ids {
			is, listed := after[id]
			should, ok := want[id]
			if !mine(id) {
				should, ok = before[id]
			}
			if listed != ok || !reflect.DeepEqual(is, should) {
				t.Fatalf("%s: got %+v, want %+v", id, is, should)
			}
		}
	})
}

func TestOnlyWhatIsSurelyThisNodesIsMine(t *testing.T) {
	for id, want := range map[string]bool{
		"meshrun/n1/shop/web/0/web": true, "meshrun-agent/n1": true,
		"meshrun/n1/shop/web/0/": false, "meshrun/n1/shop/web/x/web": false, "meshrun/n1/shop/web/0": false,
		"meshrun/n1/b/shop/web/0/web": false, // of a node named n1/b
		"meshrun/n10/shop/web/0/web":  false, "meshrun/n2/shop/web/0/web": false,
		"meshrun-agent/n10": false, "meshrun-agent/n1/b": false, "meshrun-agent": false,
		"meshrun": false, "web": false, "": false, "x/meshrun/n1/shop/web/0/web": false,
	} {
		if got := Mine("n1")(id); got != want {
			t.Errorf("%q: got %t", id, got)
		}
	}
	if !Mine("n1/b")("meshrun/n1/b/shop/web/0/web") {
		t.Error("a node with a slash in its name does not know its own")
	}
}

func TestServicesTellWhatTheyAreOf(t *testing.T) {
	exit := &spec.Exit{Code: 1}
	long := strings.Repeat("ü", maxOutput)
	id := spec.InstanceID{Job: "shop", Process: "web"}
	endpoint := func(s spec.ServiceState) []spec.Endpoint {
		return []spec.Endpoint{{Name: "web", Port: 80, Tags: []string{"v2"}, State: s}}
	}
	meta := map[string]string{"node": "n1", "job": "shop", "process": "web", "shard": "0", "version": "7", "ttl": TTL.String()}
	for _, c := range []struct {
		inst spec.Instance
		want Check
	}{
		{spec.Instance{Phase: spec.PhaseRunning, LastExit: exit, Reason: "kept as it is: held", Services: endpoint(spec.ServicePassing)}, Check{spec.ServicePassing, ""}},
		{spec.Instance{Phase: spec.PhaseStarting, LastExit: exit, Services: endpoint(spec.ServiceWarning)}, Check{spec.ServiceWarning, "starting"}},
		{spec.Instance{Phase: spec.PhaseBackoff, LastExit: exit, Services: endpoint(spec.ServiceCritical)}, Check{spec.ServiceCritical, "backoff: exit 1"}},
		{spec.Instance{Phase: spec.PhaseFailed, LastExit: exit, Reason: "used up", Services: endpoint(spec.ServiceCritical)}, Check{spec.ServiceCritical, "failed: used up"}},
		{spec.Instance{Phase: spec.PhaseFailed, Reason: long, Services: endpoint(spec.ServiceCritical)}, Check{spec.ServiceCritical, "failed: " + long[:maxOutput-8] + "…"}},
	} {
		c.inst.ID, c.inst.Version = id, 7
		want := []Service{{ID: web, Name: "web", Port: 80, Tags: []string{"v2"}, Meta: meta, Check: c.want}}
		if got := OfInstances("n1", []spec.Instance{c.inst, {ID: id}}); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestAnAgentIsListedAtItsAddress(t *testing.T) {
	node := spec.Node{Name: "n1", Address: "10.0.0.1:7450", Version: "v1"}
	want := Service{
		ID: "meshrun-agent/n1", Name: "meshrun-agent", Address: "10.0.0.1", Port: 7450,
		Meta: map[string]string{"node": "n1", "version": "v1", "ttl": TTL.String()}, Check: Check{State: spec.ServicePassing},
	}
	if got := OfAgent(&node, want.Check); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	node.Address, want.Address, want.Port = "", "", 0
	if got := OfAgent(&node, want.Check); !reflect.DeepEqual(got, want) {
		t.Errorf("on loopback only: got %+v, want %+v", got, want)
	}
}

// An agent of another version expects its services to be reported at another
// pace than this one does.
func TestWhatWasListedWithAnotherTTLIsListedAnew(t *testing.T) {
	node := spec.Node{Name: "n1"}
	s := OfAgent(&node, Check{State: spec.ServicePassing})
	old := s
	old.Meta = map[string]string{"node": "n1", "version": ""}
	if a := Diff([]Service{s}, byID(old), Mine("n1")); len(a.Register) != 1 {
		t.Errorf("to be done: %+v", a)
	}
	if a := Diff([]Service{s}, byID(s), Mine("n1")); len(a.Register) != 0 {
		t.Errorf("to be done though nothing has changed: %+v", a)
	}
}

func TestEntryTellsWhichChecksFail(t *testing.T) {
	inst := spec.Instance{
		ID: spec.InstanceID{Job: "shop", Process: "web"}, Phase: spec.PhaseRunning, Health: spec.HealthFailing,
		Checks: []spec.CheckResult{
			{Name: "page", State: spec.HealthFailing, Output: "HTTP 503"}, {Name: "queue", State: spec.HealthPassing, Output: "empty"},
			{Name: "ready", State: spec.HealthUnknown},
		},
	}
	for health, want := range map[spec.HealthState]string{
		spec.HealthFailing: "check page fails: HTTP 503", spec.HealthUnknown: "check page fails: HTTP 503\ncheck ready has not passed yet",
	} {
		inst.Health = health
		inst.Services = inst.Endpoints([]spec.Service{{Name: "web"}})
		if got := OfInstances("n1", []spec.Instance{inst}); len(got) != 1 || got[0].Check.Output != want {
			t.Errorf("%s: got %+v, want %q", health, got, want)
		}
	}
}
