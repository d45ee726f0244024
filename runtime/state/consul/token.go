package consul

import (
	"context"
	"net/http"

	"github.com/synergymesh/meshrun/runtime/state"
)

// tokenHeader carries a token to Consul.
const tokenHeader = "X-Consul-Token"

type tokenKey struct{}

// withToken puts the token of a request's context in the place of the store's.
func withToken(req *http.Request) *http.Request {
	token, ok := req.Context().Value(tokenKey{}).(string)
	if !ok {
		return req
	}
	req = req.Clone(req.Context())
	req.Header.Del(tokenHeader)
	if token != "" {
		req.Header.Set(tokenHeader, token)
	}
	return req
}

// As returns the store with the rights of another token in the place of its
// own; "" is anonymous. It ends with the store.
func (s *Store) As(token string) state.Store { return guest{s, token} }

// guest is a store with somebody's rights.
type guest struct {
	*Store
	token string
}

func (g guest) as(ctx context.Context) context.Context {
	return context.WithValue(ctx, tokenKey{}, g.token)
}

// Get is the store's.
func (g guest) Get(ctx context.Context, key string) (state.Entry, error) {
	return g.Store.Get(g.as(ctx), key)
}

// List is the store's.
func (g guest) List(ctx context.Context, prefix string) ([]state.Entry, uint64, error) {
	return g.Store.List(g.as(ctx), prefix)
}

// Txn is the store's.
func (g guest) Txn(ctx context.Context, ops ...state.Op) (uint64, error) {
	return g.Store.Txn(g.as(ctx), ops...)
}

// Watch is the store's.
func (g guest) Watch(ctx context.Context, prefix string, after uint64) ([]state.Entry, uint64, error) {
	return g.Store.Watch(g.as(ctx), prefix, after)
}

// CreateSession is the store's.
func (g guest) CreateSession(ctx context.Context, cfg state.SessionConfig) (string, error) {
	return g.Store.CreateSession(g.as(ctx), cfg)
}

// RenewSession is the store's.
func (g guest) RenewSession(ctx context.Context, id string) error {
	return g.Store.RenewSession(g.as(ctx), id)
}

// DestroySession is the store's.
func (g guest) DestroySession(ctx context.Context, id string) error {
	return g.Store.DestroySession(g.as(ctx), id)
}

// Session is the store's.
func (g guest) Session(ctx context.Context, id string) (state.Session, error) {
	return g.Store.Session(g.as(ctx), id)
}

// Close does nothing: the store is its owner's.
func (g guest) Close() error { return nil }
