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
