package api

import (
	"context"
	"net/http"
	"strings"
	"unicode"
)

// The headers and the parameter that a Call travels in.
const (
	whoHeader   = "X-Meshrun-Who"
	tokenHeader = "X-Consul-Token"
	localParam  = "local"
)

// Bounds of what a caller says of himself.
const (
	maxWho   = 128
	maxToken = 1024
)

// Call says for whom an agent is asked, and how far the question may travel.
// A Backend's methods find it in their context; a Client sends what it finds
// in the context of the call, so that an agent that asks another one for
// somebody does it in his name.
type Call struct {
	// Who is the name of the person who asks; "" outside of a request.
	Who string
	// Token is that person's Consul token; "" if none was given.
	Token string
	// Local keeps the question on the node that gets it: it answers for itself
	// alone and asks no other node.
	Local bool
}

type callKey struct{}

// WithCall returns a context that carries the call.
func WithCall(ctx context.Context, call Call) context.Context {
	return context.WithValue(ctx, callKey{}, call)
}

// CallOf returns the call that the context carries; the zero Call if it
// carries none.
func CallOf(ctx context.Context) Call {
	call, _ := ctx.Value(callKey{}).(Call)
	return call
}

// Who returns the name of the user who asks, in the context of a Backend's
// method, or "" outside of one.
func Who(ctx context.Context) string { return CallOf(ctx).Who }

// callOf reads what a request says of itself. Who asks is the kernel's word on
// a socket, and another agent's word, in the header, on the network.
func callOf(r *http.Request, p *peer) Call {
	call := Call{Who: p.name, Local: r.URL.Query().Get(localParam) == "1"}
	if token := r.Header.Get(tokenHeader); len(token) <= maxToken {
		call.Token = token
	}
	if p.agent {
		if who := cleanName(r.Header.Get(whoHeader)); who != "" {
			call.Who = who
		}
	}
	return call
}

// cleanName makes a name from outside safe to be written into logs and events.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
	if len(name) > maxWho {
		name = strings.ToValidUTF8(name[:maxWho], "")
	}
	return strings.TrimSpace(name)
}

// mark puts a call into a request.
func (c Call) mark(r *http.Request) {
	if c.Who != "" {
		r.Header.Set(whoHeader, c.Who)
	}
	if c.Token != "" {
		r.Header.Set(tokenHeader, c.Token)
	}
	if c.Local {
		q := r.URL.Query()
		q.Set(localParam, "1")
		r.URL.RawQuery = q.Encode()
	}
}
