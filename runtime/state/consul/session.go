package consul

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/synergymesh/meshrun/runtime/state"
)

// A session's name in Consul is namePrefix<node>/<name>, because the node that
// Consul knows is that of its own agent.
const namePrefix = "meshrun/"

// serfHealth is the check by which Consul's gossip says that a node is alive.
const serfHealth = "serfHealth"

// sessionBody is what creates a session. The library's own leaves a LockDelay
// of 0 out, which Consul takes for 15 s.
type sessionBody struct {
	Name       string
	TTL        string `json:",omitempty"`
	LockDelay  string
	Behavior   state.Behavior
	NodeChecks []string
}

// CreateSession starts a session on the node of the local Consul agent and
// returns its ID. It ends when that node's serfHealth turns critical, and can't
// be created while it is: that is state.ErrUnavailable.
//
// It depends on no check that the caller reports. While the Consul agent waits
// for servers it does not hear, it takes no reports (1.20 holds its lock), so that
// the check of a caller that lives turns critical, and ends its session when the
// servers are heard again.
func (s *Store) CreateSession(ctx context.Context, cfg state.SessionConfig) (string, error) {
	if err := cfg.Check(); err != nil {
		return "", err
	}
	body := sessionBody{
		Name: namePrefix + cfg.Node + "/" + cfg.Name, LockDelay: cfg.LockDelay.String(), Behavior: cfg.Behavior,
		NodeChecks: []string{serfHealth},
	}
	if cfg.TTL > 0 {
		body.TTL = cfg.TTL.String()
	}
	var created struct{ ID string }
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) error {
		_, err := s.client.Raw().Write("/v1/session/create", body, &created, write(ctx))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("create session %q: %w", cfg.Name, err)
	}
	return created.ID, nil
}

func write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{}).WithContext(ctx)
}

// RenewSession restarts the session's TTL, or returns
// state.ErrSessionNotFound. Consul does it in its leader's memory: nothing is
// written. So a leader that was stopped, and does not know yet that there is
// another one by now, confirms what that one has ended: whether the session
// lives is asked anew, of a leader that a majority of the servers has confirmed.
func (s *Store) RenewSession(ctx context.Context, id string) error {
	var renewed *api.SessionEntry
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) (err error) {
		renewed, _, err = s.client.Session().Renew(id, write(ctx))
		return err
	})
	if err == nil && renewed == nil {
		err = state.ErrSessionNotFound
	}
	if err == nil {
		_, err = s.Session(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("renew session %s: %w", id, err)
	}
	return nil
}

// DestroySession ends a session; its lock delay begins.
func (s *Store) DestroySession(ctx context.Context, id string) error {
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) error {
		_, err := s.client.Session().Destroy(id, write(ctx))
		return err
	})
	if err != nil {
		return fmt.Errorf("destroy session %s: %w", id, err)
	}
	return nil
}

// Session returns a session, or state.ErrSessionNotFound.
func (s *Store) Session(ctx context.Context, id string) (state.Session, error) {
	var entry *api.SessionEntry
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) error {
		var meta *api.QueryMeta
		var err error
		entry, meta, err = s.client.Session().Info(id, consistent(ctx))
		if err == nil && entry == nil && meta.ResultsFilteredByACLs {
			return &refusal{code: 403, text: "the token may not read the session"}
		}
		return err
	})
	if err == nil && entry == nil {
		err = state.ErrSessionNotFound
	}
	if err != nil {
		return state.Session{}, fmt.Errorf("get session %s: %w", id, err)
	}
	return session(entry)
}

// session translates Consul's words.
func session(entry *api.SessionEntry) (state.Session, error) {
	out := state.Session{ID: entry.ID, CreateIndex: entry.CreateIndex, SessionConfig: state.SessionConfig{
		Name: entry.Name, LockDelay: entry.LockDelay, Behavior: state.Behavior(entry.Behavior),
	}}
	if rest, ok := strings.CutPrefix(entry.Name, namePrefix); ok {
		out.Node, out.Name, _ = strings.Cut(rest, "/")
	}
	if entry.TTL != "" {
		var err error
		if out.TTL, err = time.ParseDuration(entry.TTL); err != nil {
			return state.Session{}, fmt.Errorf("read TTL of session %s: %w", entry.ID, err)
		}
	}
	return out, nil
}
