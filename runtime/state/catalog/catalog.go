// Package catalog keeps what a node offers listed where others look for it:
// its agent, and the services of its instances. The list is that of the
// machine's Consul agent, which tells the whole cluster; this package has the
// contract with it, the difference between what is wanted and what is listed,
// and the loop that makes it.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// TTL is after which time a check turns critical that is not reported any
	// more, as when the agent has died: the instances run on then, and an agent
	// that is restarted must be back before anybody stops using them.
	// That the machine is gone Consul knows by itself, and within seconds.
	TTL = 90 * time.Second
	// RefreshEvery is how often every check is reported, each with a request of
	// its own to the local Consul agent. It is written nowhere as long as it is
	// the same.
	RefreshEvery = 30 * time.Second
	// Forget is after which time in a critical state a service is dropped: what
	// a node leaves behind that never comes back. One that is wanted is listed
	// again at once.
	Forget = 72 * time.Hour
)

// ErrUnknown: no such service is listed.
var ErrUnknown = errors.New("the catalog does not list the service")

// Service is an entry of the list.
type Service struct {
	// ID is unique among all services of the machine.
	ID   string
	Name string
	// Address is empty for that of the machine.
	Address string
	Port    int
	Tags    []string
	Meta    map[string]string
	Check   Check
}

// Check is what is reported of a service.
type Check struct {
	// State is empty for a service that is listed without a check of ours.
	State spec.ServiceState
	// Output says why. While nothing changes, it must not either; and that of a
	// passing check is empty, because Consul would write one later on its own.
	Output string
}

// Local is the machine's own part of the catalog. Its methods return
// state.ErrUnavailable if it is away, and state.ErrDenied if the token may not
// do it.
type Local interface {
	// Services returns everything that is listed, whoever listed it.
	Services(ctx context.Context) ([]Service, error)
	// Register lists a service, in place of the one with its ID, with a check
	// that must be reported at once, and then every TTL.
	Register(ctx context.Context, s Service) error
	// Deregister takes a service off the list; that it is not on it is no error.
	Deregister(ctx context.Context, id string) error
	// Report reports the check of a service, or returns ErrUnknown.
	Report(ctx context.Context, id string, c Check) error
}

// instancePrefix begins the IDs of services of instances:
// meshrun/<node>/<job>/<process>/<shard>/<service>. Agents have
// meshrun-agent/<node>. Several agents may share one Consul agent.
const instancePrefix = "meshrun/"

// metaTTL makes what an agent of another version listed, with another TTL, be
// listed anew.
const metaTTL = "ttl"

// Mine returns which IDs belong to a node: all others are never touched.
func Mine(node string) func(id string) bool {
	prefix := instancePrefix + node + "/"
	return func(id string) bool {
		if id == agentID(node) {
			return true
		}
		rest, ok := strings.CutPrefix(id, prefix)
		if !ok {
			return false
		}
		// A name of a node may go on with a slash; then it is another node's.
		instance, service, ok := cutLast(rest)
		if !ok || service == "" {
			return false
		}
		_, err := spec.ParseInstanceID(instance)
		return err == nil
	}
}

func cutLast(s string) (before, after string, found bool) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func agentID(node string) string { return spec.AgentService + "/" + node }

// OfAgent returns the service that a node's agent is, at the address where
// other agents reach it.
func OfAgent(node *spec.Node, check Check) Service {
	s := Service{
		ID: agentID(node.Name), Name: spec.AgentService,
		Meta:  map[string]string{"node": node.Name, "version": node.Version, metaTTL: TTL.String()},
		Check: Check{State: check.State, Output: bounded(check.Output)},
	}
	if host, port, err := net.SplitHostPort(node.Address); err == nil {
		if n, err := strconv.Atoi(port); err == nil {
			s.Address, s.Port = host, n
		}
	}
	return s
}

// OfInstances returns the services of a node's instances.
func OfInstances(node string, instances []spec.Instance) []Service {
	var out []Service
	for i := range instances {
		inst := &instances[i]
		for _, e := range inst.Services {
			out = append(out, Service{
				ID: instancePrefix + node + "/" + inst.ID.String() + "/" + e.Name, Name: e.Name, Port: e.Port, Tags: e.Tags,
				Meta: map[string]string{
					"node": node, "job": inst.ID.Job, "process": inst.ID.Process, "shard": strconv.Itoa(inst.ID.Shard),
					"version": strconv.FormatUint(inst.Version, 10), metaTTL: TTL.String(),
				},
				Check: Check{State: e.State, Output: why(inst, e.State)},
			})
		}
	}
	return out
}

// why says in words why an instance is not passing.
func why(i *spec.Instance, s spec.ServiceState) string {
	if s == spec.ServicePassing {
		return ""
	}
	text := string(i.Phase)
	switch {
	case i.Phase == spec.PhaseRunning && i.Health != "":
		return bounded(ailments(i))
	case i.Reason != "":
		text += ": " + i.Reason
	case i.LastExit != nil && s == spec.ServiceCritical:
		text += ": " + i.LastExit.String()
	}
	return bounded(text)
}

// ailments tells which checks of an instance do not pass, a line each.
func ailments(i *spec.Instance) string {
	var lines []string
	for _, c := range i.Checks {
		switch {
		case c.State == spec.HealthFailing:
			lines = append(lines, fmt.Sprintf("check %s fails: %s", c.Name, c.Output))
		case c.State == spec.HealthUnknown && i.Health == spec.HealthUnknown:
			lines = append(lines, fmt.Sprintf("check %s has not passed yet", c.Name))
		}
	}
	return strings.Join(lines, "\n")
}

// maxOutput is how much of a reason is told: Consul cuts at 4 KiB.
const maxOutput = 1000

func bounded(text string) string {
	if len(text) <= maxOutput {
		return text
	}
	end := maxOutput
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
