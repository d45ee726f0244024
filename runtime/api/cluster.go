package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

// ClusterBackend is what an agent knows and does of the cluster as a whole. On
// one machine that is a cluster of one.
type ClusterBackend interface {
	// Cluster returns the nodes and what each of them has to decide.
	Cluster(ctx context.Context) (Cluster, error)
	// Drain makes a node give its shards to others and take no new ones, or
	// ends that. It returns when it is ordered; the shards follow. ErrNotFound
	// says which name may have been meant.
	Drain(ctx context.Context, order Drain) (Drained, error)
	// EndSession ends the session of another node that asks for it because it
	// does not reach the store, so that others need not wait for its TTL. Only
	// agents may ask. It returns ErrUnavailable if this node is not sure that
	// the store is not away for all.
	EndSession(ctx context.Context, end SessionEnd) error
	// SaveSnapshot writes the whole state as portable text and returns its
	// number of keys. It holds whatever secrets the jobs hold.
	SaveSnapshot(ctx context.Context, w io.Writer) (int, error)
	// RestoreSnapshot writes what SaveSnapshot wrote into a state without jobs,
	// all or nothing, and returns the number of keys. ErrInvalid says that the
	// snapshot is damaged or that there are jobs already.
	RestoreSnapshot(ctx context.Context, r io.Reader) (int, error)

	// RegisterEngine makes an engine known that meshrun did not start, or keeps
	// it known: doing it again is its heartbeat. It returns ErrInvalid for a
	// record that makes no sense.
	RegisterEngine(ctx context.Context, engine spec.Engine) (EngineStatus, error)
	// Engines returns the registered engines, ordered by name; in a call that
	// is Local those that this agent looks after.
	Engines(ctx context.Context) ([]EngineStatus, error)
	// Engine returns one engine, or ErrNotFound.
	Engine(ctx context.Context, name string) (EngineStatus, error)
}

// Cluster is the nodes and who decides what.
type Cluster struct {
	Nodes []NodeStatus `json:"nodes"`
	// Primary is the node whose scheduler decides; "" while nobody does.
	Primary string `json:"primary"`
	// ControlShards are the nodes that own the control shards, by number; ""
	// while nobody does.
	ControlShards []string `json:"control_shards"`
}

// NodeState is whether a node can be used.
type NodeState string

// The states of a node.
const (
	NodeReady    NodeState = "ready"
	NodeDraining NodeState = "draining" // it takes no new shards, and gives its own away
	NodeGone     NodeState = "gone"     // it is not there, and something is still known of it
)

// NodeStatus is a node as the others see it.
type NodeStatus struct {
	spec.Node
	State NodeState `json:"state"`
	// Instances counts those with a process.
	Instances int `json:"instances"`
	// Reserved is what the resources come to of all that belongs on the node.
	Reserved spec.Resources `json:"reserved,omitzero"`
	Primary  bool           `json:"primary,omitempty"`
	// ControlShards are those that the node owns.
	ControlShards []int `json:"control_shards,omitempty"`
	// Exclusive are the exclusive shards whose locks the node holds.
	Exclusive []string `json:"exclusive,omitempty"`
	// Session holds the node's record and locks.
	Session string `json:"session,omitempty"`
}

// Drain is an order to drain a node.
type Drain struct {
	Node string `json:"node"`
	// Off ends the draining.
	Off bool `json:"off,omitempty"`
}

// Drained says what came of it.
type Drained struct {
	// Changed is false if the node was so already.
	Changed bool `json:"changed"`
	// Warnings are sentences about shards that no other node can take.
	Warnings []string `json:"warnings,omitempty"`
}

// SessionEnd asks for the end of the asking node's own session.
type SessionEnd struct {
	Node    string `json:"node"`
	Session string `json:"session"`
	// Silent is how long ago the last renewal was sent that succeeded.
	Silent spec.Duration `json:"silent"`
}

// EngineStatus is a registered engine and what its owner knows of it.
type EngineStatus struct {
	spec.Engine
	// Node owns the engine's control shard and counts its heartbeats.
	Node string `json:"node,omitempty"`
	// Beat is when the owner heard of it last; zero if the owner has not, since
	// it owns it, or could not be asked.
	Beat time.Time `json:"beat,omitzero"`
	// Expires is when it is forgotten unless it is heard of again.
	Expires time.Time `json:"expires,omitzero"`
}

// maxSnapshot is the largest snapshot that is taken in, in bytes.
const maxSnapshot = state.MaxExportBytes

// keysHeader carries the number of keys of a snapshot, as a trailer.
const keysHeader = "Meshrun-Keys"

// restored says how many keys were restored.
type restored struct {
	Keys int `json:"keys"`
}

// InspectSnapshot reads a snapshot and returns what is in it, or an error that
// says why it is not a whole one.
func InspectSnapshot(r io.Reader) (state.Contents, error) { return state.Inspect(r) }

func (s *Server) clusterRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/cluster", answer(s, func(r *http.Request) (Cluster, error) { return s.cfg.Backend.Cluster(r.Context()) }))
	mux.HandleFunc("POST /v1/drain", answer(s, func(r *http.Request) (Drained, error) {
		order, err := read[Drain](r)
		if err != nil {
			return Drained{}, err
		}
		return s.cfg.Backend.Drain(r.Context(), order)
	}))
	mux.HandleFunc("POST /v1/session/end", answer(s, func(r *http.Request) (struct{}, error) {
		if !peerOfRequest(r).agent {
			return struct{}{}, fmt.Errorf("end a node's session: only its own agent asks another one for that: %w", ErrForbidden)
		}
		end, err := read[SessionEnd](r)
		if err != nil {
			return struct{}{}, err
		}
		return struct{}{}, s.cfg.Backend.EndSession(r.Context(), end)
	}))
	mux.HandleFunc("GET /v1/snapshot", s.saveSnapshot)
	mux.HandleFunc("PUT /v1/snapshot", s.restoreSnapshot)
	mux.HandleFunc("GET /v1/engines", answer(s, func(r *http.Request) ([]EngineStatus, error) { return s.cfg.Backend.Engines(r.Context()) }))
	mux.HandleFunc("GET /v1/engines/{name}", answer(s, func(r *http.Request) (EngineStatus, error) {
		return s.cfg.Backend.Engine(r.Context(), r.PathValue("name"))
	}))
	mux.HandleFunc("PUT /v1/engines/{name}", answer(s, func(r *http.Request) (EngineStatus, error) {
		engine, err := read[spec.Engine](r)
		if err != nil {
			return EngineStatus{}, err
		}
		name := r.PathValue("name")
		if engine.Name != "" && engine.Name != name {
			return EngineStatus{}, fmt.Errorf("register engine %s: its record names it %q: %w", name, engine.Name, ErrInvalid)
		}
		engine.Name = name
		return s.cfg.Backend.RegisterEngine(r.Context(), engine)
	}))
}

// saveSnapshot streams the snapshot. An error after its first bytes is in the
// trailer.
func (s *Server) saveSnapshot(w http.ResponseWriter, r *http.Request) {
	body := &slowWriter{w: w, control: http.NewResponseController(w)}
	keys, err := s.cfg.Backend.SaveSnapshot(r.Context(), body)
	switch {
	case err != nil && !body.begun:
		w.Header().Del("Trailer")
		s.fail(w, r, err)
	case err != nil:
		wire, _ := wireError(err)
		w.Header().Set(errorTrailer, trailerText(wire))
	default:
		w.Header().Set(keysHeader, strconv.Itoa(keys))
	}
}

// slowWriter gives the reader time for each piece.
type slowWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// Write sends a piece.
func (w *slowWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.begun = true
		w.w.Header().Set("Content-Type", "application/x-ndjson")
		w.w.Header().Set("Trailer", errorTrailer+", "+keysHeader)
	}
	_ = w.control.SetWriteDeadline(time.Now().Add(bodyTimeout))
	return w.w.Write(p)
}

// restoreSnapshot takes a snapshot in as it comes, each piece within a time.
func (s *Server) restoreSnapshot(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	body := &slowReader{r: http.MaxBytesReader(w, r.Body, maxSnapshot+1), control: control}
	keys, err := s.cfg.Backend.RestoreSnapshot(r.Context(), body)
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.write(w, restored{keys})
}

// slowReader gives the sender time for each piece.
type slowReader struct {
	r       io.Reader
	control *http.ResponseController
}

// Read reads a piece.
func (r *slowReader) Read(p []byte) (int, error) {
	_ = r.control.SetReadDeadline(time.Now().Add(bodyTimeout))
	return r.r.Read(p)
}

// Cluster implements Backend.
func (c *Client) Cluster(ctx context.Context) (Cluster, error) {
	return call[Cluster](ctx, c, http.MethodGet, "/v1/cluster", nil)
}

// Drain implements Backend.
func (c *Client) Drain(ctx context.Context, order Drain) (Drained, error) {
	return call[Drained](ctx, c, http.MethodPost, "/v1/drain", order)
}

// EndSession implements Backend.
func (c *Client) EndSession(ctx context.Context, end SessionEnd) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, "/v1/session/end", end)
	return err
}

// SaveSnapshot implements Backend. After an error, what was written is not a
// whole snapshot.
func (c *Client) SaveSnapshot(ctx context.Context, w io.Writer) (int, error) {
	res, err := c.send(ctx, http.MethodGet, "/v1/snapshot", nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(w, res.Body); err != nil {
		return 0, c.sendError(ctx, err)
	}
	if err := trailerError(res); err != nil {
		return 0, err
	}
	keys, err := strconv.Atoi(res.Trailer.Get(keysHeader))
	if err != nil {
		return 0, fmt.Errorf("read the number of keys: %w", err)
	}
	return keys, nil
}

// RestoreSnapshot implements Backend.
func (c *Client) RestoreSnapshot(ctx context.Context, r io.Reader) (int, error) {
	res, err := c.sendBody(ctx, http.MethodPut, "/v1/snapshot", r)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var done restored
	if err := json.NewDecoder(res.Body).Decode(&done); err != nil {
		return 0, c.sendError(ctx, err)
	}
	return done.Keys, nil
}

// RegisterEngine implements Backend.
func (c *Client) RegisterEngine(ctx context.Context, engine spec.Engine) (EngineStatus, error) {
	return call[EngineStatus](ctx, c, http.MethodPut, "/v1/engines/"+url.PathEscape(engine.Name), engine)
}

// Engines implements Backend.
func (c *Client) Engines(ctx context.Context) ([]EngineStatus, error) {
	return call[[]EngineStatus](ctx, c, http.MethodGet, "/v1/engines", nil)
}

// Engine implements Backend.
func (c *Client) Engine(ctx context.Context, name string) (EngineStatus, error) {
	return call[EngineStatus](ctx, c, http.MethodGet, "/v1/engines/"+url.PathEscape(name), nil)
}
