package spec

import (
	"reflect"
	"testing"
)

func TestServicesAreListedAsTheirInstanceIs(t *testing.T) {
	services := []Service{{Name: "web", Port: "http", Tags: []string{"v2"}}, {Name: "web-admin"}}
	for phase, want := range map[Phase]ServiceState{
		PhaseStarting: ServiceWarning, PhaseRunning: ServicePassing, PhaseStopping: ServiceWarning,
		PhaseBackoff: ServiceCritical, PhaseFailed: ServiceCritical, PhasePending: "", PhaseCompleted: "",
	} {
		i := Instance{Phase: phase, Ports: map[string]int{"http": 8080}}
		var expected []Endpoint
		if want != "" {
			expected = []Endpoint{{Name: "web", Port: 8080, Tags: []string{"v2"}, State: want}, {Name: "web-admin", State: want}}
		}
		if got := i.Endpoints(services); !reflect.DeepEqual(got, expected) {
			t.Errorf("%s: got %+v, want %+v", phase, got, expected)
		}
		if got := i.Endpoints(nil); got != nil {
			t.Errorf("%s without services: got %+v", phase, got)
		}
	}
}

func TestServicesOfWhatRunsAreListedAsItsChecksSay(t *testing.T) {
	services := []Service{{Name: "web"}}
	tests := map[string]struct {
		seen Instance
		want ServiceState
	}{
		"no checks":                   {Instance{Phase: PhaseRunning}, ServicePassing},
		"passing":                     {Instance{Phase: PhaseRunning, Health: HealthPassing}, ServicePassing},
		"not known yet":               {Instance{Phase: PhaseRunning, Health: HealthUnknown}, ServiceWarning},
		"failing":                     {Instance{Phase: PhaseRunning, Health: HealthFailing}, ServiceCritical},
		"failing and withdrawn":       {Instance{Phase: PhaseRunning, Health: HealthFailing, Withdrawn: true}, ""},
		"down, with an older finding": {Instance{Phase: PhaseBackoff, Health: HealthPassing}, ServiceCritical},
	}
	for name, test := range tests {
		var got ServiceState
		for _, e := range test.seen.Endpoints(services) {
			got = e.State
		}
		if got != test.want {
			t.Errorf("%s: it is listed as %q, want %q", name, got, test.want)
		}
	}
}
