package agent

import (
	"context"
	"fmt"

	"github.com/synergymesh/meshrun/runtime/api"
)

// Network says how this node's agent and the others' reach each other.
type Network struct {
	// Listen is the host:port at which other agents are let in; empty for
	// none.
	Listen string
	// Certificates are what agents show each other, from files.
	Certificates api.CertificateFiles
}

// credentials returns what this agent shows to others; nil if it has nothing.
func (a *agent) credentials() (api.Credentials, error) {
	if a.cfg.Network.Certificates == (api.CertificateFiles{}) {
		return nil, nil
	}
	return api.NewFileCredentials(a.cfg.Network.Certificates)
}

// front returns who answers the API: with credentials for all nodes, and
// otherwise for this one.
func (a *agent) front(cred api.Credentials) api.Backend {
	if cred == nil {
		return a.backend
	}
	m := newMesh(a.backend, a.store, cred, a.logger)
	a.life.onStop("peers", func(context.Context) error { m.peers.close(); return nil })
	a.life.start(context.Background(), "feed", m.feed.run, a.failed)
	return m
}

// admit lets other agents in. That it can't is no reason not to run: it is
// said, and what it means.
func (a *agent) admit(ctx context.Context, server *api.Server, cred api.Credentials) {
	addr := a.cfg.Network.Listen
	if addr == "" {
		return
	}
	if err := server.Listen(ctx, addr, cred); err != nil {
		a.logger.Error("other nodes are not let in", "error", err)
		a.backend.problem("network", fmt.Sprintf("other nodes cannot ask this one for output, and cannot send signals here: %v", err))
		return
	}
	a.logger.Info("other nodes are let in", "address", server.Address())
}
