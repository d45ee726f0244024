package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/consul/api"

	"github.com/synergymesh/meshrun/runtime/state/catalog"
	"github.com/synergymesh/meshrun/spec"
)

// checkNotes explain a check to who reads it in Consul's UI.
const checkNotes = "Reported by the meshrun agent of the node: critical if it has not been for " // and catalog.TTL

// Catalog is the part of Consul's catalog that the local Consul agent tells the
// servers. Reads are of the agent's memory; what is written there the agent
// writes to the servers if it has changed, also later, should they be away.
type Catalog struct{ store *Store }

var _ catalog.Local = Catalog{}

// Catalog returns the local agent's part of the catalog, used with the store's
// token. The token needs service:write on the names of the services.
func (s *Store) Catalog() Catalog { return Catalog{s} }

// call makes one request, about a service of the name if it is given.
func (c Catalog) call(ctx context.Context, name string, request func(ctx context.Context) error) error {
	return c.store.call(ctx, c.store.opts.Timeout, func(ctx context.Context) error {
		err := request(ctx)
		if r := (*refusal)(nil); errors.As(err, &r) && r.code == http.StatusForbidden {
			r.needs = fmt.Sprintf("service %q { policy = \"write\" }", name)
			if name == "" {
				r.needs = `service_prefix "" { policy = "write" }`
			}
		}
		return err
	})
}

// missing reports whether Consul said that there is no such thing.
func missing(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusNotFound
}

func checkID(service string) string { return "service:" + service }

// Services returns all services of the local agent, with the state of the check
// that Register gives them.
func (c Catalog) Services(ctx context.Context) ([]catalog.Service, error) {
	var services map[string]*api.AgentService
	var checks map[string]*api.AgentCheck
	err := c.call(ctx, "", func(ctx context.Context) (err error) {
		q := (&api.QueryOptions{}).WithContext(ctx)
		if services, err = c.store.client.Agent().ServicesWithFilterOpts("", q); err != nil {
			return err
		}
		checks, err = c.store.client.Agent().ChecksWithFilterOpts("", q)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	out := make([]catalog.Service, 0, len(services))
	for id, s := range services {
		entry := catalog.Service{ID: id, Name: s.Service, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta}
		if check := checks[checkID(id)]; check != nil {
			entry.Check = catalog.Check{State: spec.ServiceState(check.Status), Output: check.Output}
		}
		out = append(out, entry)
	}
	return out, nil
}

// first is the state in which a check is registered before it is reported as
// it is. Consul tells the servers of another state at once, but of another
// output only minutes later: so that the reason for a state is seen with it,
// the first one differs, but never so that what is passing is not used.
func first(s spec.ServiceState) spec.ServiceState {
	switch s {
	case spec.ServiceCritical:
		return spec.ServiceWarning
	case spec.ServiceWarning:
		return spec.ServiceCritical
	}
	return s
}

// Register lists a service, in place of the one with its ID and of its checks.
// Its check must be reported at once.
func (c Catalog) Register(ctx context.Context, s catalog.Service) error {
	entry := &api.AgentServiceRegistration{
		ID: s.ID, Name: s.Name, Address: s.Address, Port: s.Port, Tags: s.Tags, Meta: s.Meta,
		Check: &api.AgentServiceCheck{
			CheckID: checkID(s.ID), Name: "meshrun", Notes: checkNotes + catalog.TTL.String(),
			TTL: catalog.TTL.String(), Status: string(first(s.Check.State)), DeregisterCriticalServiceAfter: catalog.Forget.String(),
		},
	}
	err := c.call(ctx, s.Name, func(ctx context.Context) error {
		return c.store.client.Agent().ServiceRegisterOpts(entry, api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx))
	})
	if err != nil {
		return fmt.Errorf("register service %s: %w", s.ID, err)
	}
	return nil
}

// Deregister takes a service off the list, if it is there.
func (c Catalog) Deregister(ctx context.Context, id string) error {
	err := c.call(ctx, "", func(ctx context.Context) error {
		err := c.store.client.Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx))
		if missing(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("deregister service %s: %w", id, err)
	}
	return nil
}

// Report reports the check of a service, or returns catalog.ErrUnknown.
func (c Catalog) Report(ctx context.Context, id string, check catalog.Check) error {
	unknown := false
	err := c.call(ctx, "", func(ctx context.Context) error {
		q := (&api.QueryOptions{}).WithContext(ctx)
		err := c.store.client.Agent().UpdateTTLOpts(checkID(id), check.Output, string(check.State), q)
		if unknown = missing(err); unknown {
			return nil
		}
		return err
	})
	if err == nil && unknown {
		err = catalog.ErrUnknown
	}
	if err != nil {
		return fmt.Errorf("report check of service %s: %w", id, err)
	}
	return nil
}
