// Package consul is the store of several machines: state.Store on a Consul
// cluster's KV store, reached through the node's own Consul agent.
//
//	Get, List, Session ─▶ consistent read ─┐
//	Txn, CreateSession … ─▶ one request ───┼─▶ Consul agent ─▶ leader ─▶ raft
//	Watch ─▶ blocking query, again and again┘
//
// Nothing is cached and no goroutine runs: each method is one request (Watch as
// many as it takes), with a deadline. The library's api.Lock is not used: it
// misses a lost lock for minutes when packets are dropped (consul#18271).
package consul

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state"
)

// Defaults of Options.
const (
	DefaultTimeout = 5 * time.Second
	// DefaultWait is shorter than Consul's own five minutes, because it is also
	// the longest that a watch stays deaf when packets are silently dropped.
	DefaultWait = time.Minute
)

// maxWait is the longest that Consul lets a query block.
const maxWait = 10 * time.Minute

// Options say how Consul is reached. What is empty, and all about TLS,
// namespaces and authentication, is read from the environment as Consul's own
// tools do: CONSUL_HTTP_ADDR, CONSUL_HTTP_TOKEN, CONSUL_CACERT and so on.
type Options struct {
	Logger     hclog.Logger
	Address    string // host:port, or a URL with http, https or unix
	Token      string
	Datacenter string
	// CAFile holds the certificates that Consul's must be signed by; CertFile and
	// KeyFile are this client's own.
	CAFile, CertFile, KeyFile string
	// Prefix stands before every key in Consul, and is no part of the keys that
	// callers see.
	Prefix string
	// Timeout ends a request that is not answered; 0 means DefaultTimeout.
	Timeout time.Duration
	// Wait is how long one blocking query lasts, at most ten minutes; 0 means
	// DefaultWait.
	Wait time.Duration
}

// Store is the store on Consul.
type Store struct {
	opts   Options
	logger hclog.Logger
	client *client
	recent recent
	away   atomic.Bool // the last request found Consul unavailable

	life  context.Context // ends with Close
	end   context.CancelFunc
	mu    sync.Mutex // guards calls.Add against calls.Wait
	calls sync.WaitGroup
}

var _ state.Store = (*Store)(nil)

// Open returns a store on the Consul that the options name. It returns
// state.ErrDenied if the token may not read meshrun's keys. A Consul that
// can't be reached now is no error, because it may come back while the store is
// in use: until then, all methods return state.ErrUnavailable.
func Open(ctx context.Context, opts Options) (*Store, error) {
	opts = opts.withDefaults()
	client, err := newClient(opts)
	if err != nil {
		return nil, fmt.Errorf("open store on Consul: %w", err)
	}
	s := &Store{opts: opts, logger: opts.Logger.Named("state"), client: client}
	s.life, s.end = context.WithCancel(context.Background())
	_, err = s.Get(ctx, state.SchedulerLock)
	if err == nil || errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUnavailable) {
		return s, nil
	}
	_ = s.Close() // it never fails
	return nil, fmt.Errorf("open store on Consul: %w", err)
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	o.Wait = min(o.Wait, maxWait)
	return o
}

// Get returns the entry of a key, or state.ErrNotFound.
func (s *Store) Get(ctx context.Context, key string) (state.Entry, error) {
	if err := state.CheckKey(key); err != nil {
		return state.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	var pair *api.KVPair
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) (err error) {
		pair, _, err = s.client.KV().Get(s.opts.Prefix+key, consistent(ctx))
		return err
	})
	if err == nil && pair == nil {
		err = state.ErrNotFound
	}
	if err != nil {
		return state.Entry{}, fmt.Errorf("get %s: %w", key, err)
	}
	return s.entry(pair), nil
}

// List returns the entries under a prefix and the index to watch from.
func (s *Store) List(ctx context.Context, prefix string) ([]state.Entry, uint64, error) {
	if err := state.CheckPrefix(prefix); err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	entries, index, err := s.list(ctx, prefix, s.opts.Timeout, consistent(ctx))
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", prefix, err)
	}
	s.recent.put(prefix, index, digest(entries))
	return entries, index, nil
}

// consistent returns the options of a read that must see what was
// acknowledged before it. Consul's default mode does that but for a leader that
// was deposed less than half a second ago and hasn't noticed; asking it to make
// sure costs a round among the servers. Reads are rare, so they can afford it,
// and so is a watch from index 0. One from another index needn't: no leader that
// is behind returns from it.
func consistent(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx)
}

// list reads a prefix once.
func (s *Store) list(ctx context.Context, prefix string, limit time.Duration, q *api.QueryOptions) ([]state.Entry, uint64, error) {
	var pairs api.KVPairs
	var meta *api.QueryMeta
	err := s.call(ctx, limit, func(ctx context.Context) (err error) {
		pairs, meta, err = s.client.KV().List(s.opts.Prefix+prefix, q.WithContext(ctx))
		return err
	})
	if err == nil {
		err = s.vouch(ctx, prefix, len(pairs), meta)
	}
	if err != nil {
		return nil, 0, err
	}
	entries := make([]state.Entry, len(pairs))
	for i, pair := range pairs {
		entries[i] = s.entry(pair)
	}
	return entries, meta.LastIndex, nil
}

// vouch returns state.ErrDenied unless the token could see all of a list. Consul
// leaves out silently what a token may not read; a node that took that for the
// truth would stop all that it runs. The mark that it sets then is withheld from
// the anonymous token, so an empty list is doubted if rights are needed to see
// more: reading one key is refused openly.
func (s *Store) vouch(ctx context.Context, prefix string, n int, meta *api.QueryMeta) error {
	if meta.ResultsFilteredByACLs {
		return s.denied(ctx, "Consul has left out keys that the token may not read")
	}
	key := s.opts.Prefix + prefix
	if n > 0 || key == "" || meta.DefaultACLPolicy != "deny" {
		return nil
	}
	return s.call(ctx, s.opts.Timeout, func(ctx context.Context) error {
		_, _, err := s.client.KV().Get(key, (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
}

func (s *Store) entry(pair *api.KVPair) state.Entry {
	return state.Entry{
		Key: strings.TrimPrefix(pair.Key, s.opts.Prefix), Value: pair.Value,
		CreateIndex: pair.CreateIndex, ModifyIndex: pair.ModifyIndex,
		LockIndex: pair.LockIndex, Session: pair.Session,
	}
}

// call makes one request under a context that ends with the caller's, after
// the limit, and with Close; and says in the contract's words why it failed.
func (s *Store) call(ctx context.Context, limit time.Duration, request func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.begin() {
		return state.ErrClosed
	}
	defer s.calls.Done()
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	err := request(limited)
	if err != nil {
		err = s.explain(ctx, limited, limit, err)
	}
	s.note(err)
	return err
}

func (s *Store) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life.Err() != nil {
		return false
	}
	s.calls.Add(1)
	return true
}

// note logs when Consul goes away and when it is back.
func (s *Store) note(err error) {
	away := errors.Is(err, state.ErrUnavailable)
	if s.away.Load() == away || (err != nil && !away) || s.away.Swap(away) == away {
		return
	}
	if away {
		s.logger.Warn("Consul is unavailable", "error", err)
	} else {
		s.logger.Info("Consul is available again")
	}
}

// Close ends all calls with state.ErrClosed and waits for them. Sessions live
// on.
func (s *Store) Close() error {
	s.mu.Lock()
	s.end()
	s.mu.Unlock()
	s.calls.Wait()
	s.client.transport.CloseIdleConnections()
	return nil
}
