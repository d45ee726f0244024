package spec

// AgentService is the name of the service that every agent of a cluster is, in
// Consul's catalog and for its CA.
const AgentService = "meshrun-agent"

// ServiceState is how well a catalog of services says that something is.
type ServiceState string

// The states of what is listed. Consul leaves only the critical out of its
// answers over DNS.
const (
	ServicePassing  ServiceState = "passing"
	ServiceWarning  ServiceState = "warning"
	ServiceCritical ServiceState = "critical"
)

// Endpoint is a service of one instance, as a catalog lists it.
type Endpoint struct {
	Name string `json:"name"`
	// Port is the number that the instance got; 0 if the service has no port,
	// or if the instance has not got it yet.
	Port  int          `json:"port,omitempty"`
	Tags  []string     `json:"tags,omitempty"`
	State ServiceState `json:"state"`
}

// ServiceState returns how the services of an instance in this phase are
// listed; false if they are not: nobody shall look for what is held back, and
// perhaps runs on another node, nor for what has done its work.
func (p Phase) ServiceState() (ServiceState, bool) {
	switch p {
	case PhaseRunning:
		return ServicePassing, true
	case PhaseStarting, PhaseStopping:
		return ServiceWarning, true
	case PhaseBackoff, PhaseFailed:
		return ServiceCritical, true
	}
	return "", false
}

// ServiceState returns how the services of the instance are listed; false if
// they are not. While its checks have not passed yet it is none to be preferred,
// and a failing one is none at all; see HealthWithdraw.
func (i *Instance) ServiceState() (ServiceState, bool) {
	state, listed := i.Phase.ServiceState()
	if i.Phase != PhaseRunning {
		return state, listed
	}
	switch {
	case i.Withdrawn:
		return "", false
	case i.Health == HealthFailing:
		return ServiceCritical, true
	case i.Health == HealthUnknown:
		return ServiceWarning, true
	}
	return state, listed
}

// Endpoints returns what a catalog lists of the instance, given the services
// of its process.
func (i *Instance) Endpoints(services []Service) []Endpoint {
	state, listed := i.ServiceState()
	if !listed || len(services) == 0 {
		return nil
	}
	out := make([]Endpoint, len(services))
	for n, s := range services {
		out[n] = Endpoint{Name: s.Name, Port: i.Ports[s.Port], Tags: s.Tags, State: state}
	}
	return out
}
