package watchdog

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// maxBody bounds a request: a batch of declarations with their environments.
const maxBody = 64 << 20

// declareRequest is the body of POST /v1/declare.
type declareRequest struct {
	Set    []spec.Launch     `json:"set,omitempty"`
	Remove []spec.InstanceID `json:"remove,omitempty"`
}

// signalRequest is the body of POST /v1/signal.
type signalRequest struct {
	IDs    []spec.InstanceID `json:"ids"`
	Signal spec.Signal       `json:"signal"`
}

// shutdownRequest is the body of POST /v1/shutdown.
type shutdownRequest struct {
	StopInstances bool `json:"stop_instances"`
}

// seqReply is the number of the last event when the request was done.
type seqReply struct {
	Seq uint64 `json:"seq"`
}

// errorReply is the body of every response that is not a success.
type errorReply struct {
	Error string `json:"error"`
}

// Health is the state of a watchdog: the response to GET /v1/health.
type Health struct {
	// OK is false if something is degraded; Problems says what.
	OK       bool     `json:"ok"`
	Problems []string `json:"problems,omitempty"`
	PID      int      `json:"pid"`
	Version  string   `json:"version"`
	Seq      uint64   `json:"seq"`
	// Instances counts all instances, Processes those with a process, Queued
	// those in the queue of forks.
	Instances int       `json:"instances"`
	Processes int       `json:"processes"`
	Queued    int       `json:"queued"`
	Started   time.Time `json:"started"`
}

// server answers requests on the unix socket. It holds no state: the loop has
// it.
type server struct {
	log     hclog.Logger
	super   *supervisor
	dir     string // of the journal
	ring    *ring
	version string
	started time.Time
	// upgrade makes Run replace the program.
	upgrade loop.Signal
}

// handler returns the API.
func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/table", s.table)
	mux.HandleFunc("GET /v1/health", s.health)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("POST /v1/declare", s.declare)
	mux.HandleFunc("POST /v1/signal", s.signal)
	mux.HandleFunc("PUT /v1/lease", s.lease)
	mux.HandleFunc("POST /v1/shutdown", s.shutdown)
	mux.HandleFunc("POST /v1/upgrade", s.reexec)
	return mux
}

func (s *server) table(w http.ResponseWriter, r *http.Request) {
	var t spec.Table
	err := s.super.do(r.Context(), func() { t = s.super.table() })
	t.PID, t.Version = os.Getpid(), s.version
	reply(w, t, err)
}

func (s *server) health(w http.ResponseWriter, r *http.Request) {
	var h Health
	err := s.super.do(r.Context(), func() { h = s.super.health() })
	h.PID, h.Version, h.Started = os.Getpid(), s.version, s.started
	reply(w, h, err)
}

func (s *server) declare(w http.ResponseWriter, r *http.Request) {
	var req declareRequest
	if !body(w, r, &req) {
		return
	}
	err := checkBatch(req.Set, req.Remove)
	texts := spec.Texts{}
	for i := range req.Set {
		texts.Share(&req.Set[i])
	}
	var out seqReply
	if err == nil {
		derr := s.super.do(r.Context(), func() {
			if r.Context().Err() != nil {
				return // the client has gone, and may have sent another request since
			}
			err = s.super.declare(req.Set, req.Remove, time.Now())
			out.Seq = s.super.life.journal.seq
		})
		err = errors.Join(err, derr)
	}
	reply(w, out, err)
}

func (s *server) signal(w http.ResponseWriter, r *http.Request) {
	var req signalRequest
	if !body(w, r, &req) {
		return
	}
	var err error
	derr := s.super.do(r.Context(), func() { err = s.super.signal(req.IDs, req.Signal) })
	reply(w, struct{}{}, errors.Join(err, derr))
}

// lease renews or revokes a lease. It does not wait for the loop, which may be
// held up: a lease that is renewed in time must not expire for that reason.
func (s *server) lease(w http.ResponseWriter, r *http.Request) {
	var l spec.Lease
	if !body(w, r, &l) {
		return
	}
	reply(w, struct{}{}, s.super.life.leases.fence.renew(l))
}

func (s *server) shutdown(w http.ResponseWriter, r *http.Request) {
	var req shutdownRequest
	if !body(w, r, &req) {
		return
	}
	s.log.Info("shutdown requested", "stop_instances", req.StopInstances)
	var refused error
	err := s.super.do(r.Context(), func() {
		if !req.StopInstances && s.super.shutdown == nil {
			if refused = s.super.leaveable(); refused != nil {
				return
			}
		}
		s.super.beginShutdown(!req.StopInstances, time.Now())
	})
	err = errors.Join(refused, err)
	reply(w, struct{}{}, err)
}

func (s *server) reexec(w http.ResponseWriter, _ *http.Request) {
	s.upgrade.Set()
	reply(w, struct{}{}, nil)
}

// body decodes a request; on an error it responds itself and returns false.
func body(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		reply(w, nil, refuse("cannot read the request: %v", err))
		return false
	}
	return true
}

// reply writes a response, or an error.
func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		status := http.StatusInternalServerError
		switch {
		case errors.Is(err, ErrRefused):
			status = http.StatusUnprocessableEntity
		case errors.Is(err, errClosed), errors.Is(err, context.Canceled):
			status = http.StatusServiceUnavailable
		}
		w.WriteHeader(status)
		v = errorReply{Error: err.Error()}
	}
	json.NewEncoder(w).Encode(v)
}
