package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// indexHeader carries the index of an answer that can be waited on.
const indexHeader = "Meshrun-Index"

// readyTimeout bounds how long the agent may take to say who it is.
const readyTimeout = 3 * time.Second

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /ready", s.ready)
	mux.HandleFunc("GET /v1/info", answer(s, func(r *http.Request) (Info, error) { return s.cfg.Backend.Info(r.Context()) }))
	mux.HandleFunc("POST /v1/plan", answer(s, s.plan))
	mux.HandleFunc("POST /v1/plan/apply", answer(s, s.planAndApply))
	mux.HandleFunc("POST /v1/apply", answer(s, s.apply))
	mux.HandleFunc("GET /v1/jobs", answer(s, func(r *http.Request) ([]spec.JobVersion, error) { return s.cfg.Backend.Jobs(r.Context()) }))
	mux.HandleFunc("GET /v1/jobs/{job}", answer(s, func(r *http.Request) (spec.JobVersion, error) {
		return s.cfg.Backend.Job(r.Context(), r.PathValue("job"))
	}))
	mux.HandleFunc("GET /v1/jobs/{job}/history", answer(s, func(r *http.Request) ([]spec.JobVersion, error) {
		return s.cfg.Backend.History(r.Context(), r.PathValue("job"))
	}))
	mux.HandleFunc("GET /v1/jobs/{job}/runs", answer(s, func(r *http.Request) ([]spec.Run, error) {
		return s.cfg.Backend.Runs(r.Context(), r.PathValue("job"))
	}))
	mux.HandleFunc("GET /v1/jobs/{job}/rollout", s.rollout)
	mux.HandleFunc("GET /v1/rollouts", answer(s, func(r *http.Request) ([]spec.Rollout, error) { return s.cfg.Backend.Rollouts(r.Context()) }))
	mux.HandleFunc("GET /v1/placements", answer(s, func(r *http.Request) ([]spec.Placement, error) { return s.cfg.Backend.Placements(r.Context()) }))
	mux.HandleFunc("GET /v1/instances", s.instances)
	mux.HandleFunc("GET /v1/logs", s.logs)
	mux.HandleFunc("GET /v1/events", s.events)
	mux.HandleFunc("POST /v1/signal", answer(s, s.signal))
	mux.HandleFunc("POST /v1/shutdown", answer(s, s.shutdown))
	mux.HandleFunc("POST /v1/upgrade", answer(s, func(r *http.Request) (struct{}, error) {
		return struct{}{}, s.cfg.Backend.Upgrade(r.Context())
	}))
	s.clusterRoutes(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &Error{
			Message: fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path), Code: "not_found",
			Hint: "the command may be newer than the agent: upgrade it with `meshrun upgrade`",
		})
	})
	return mux
}

// answer makes a handler of a function that returns a value.
func answer[T any](s *Server, do func(*http.Request) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := readBody(w, r); err != nil {
			s.fail(w, r, err)
			return
		}
		value, err := do(r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.write(w, value)
	}
}

// write answers with a value.
func (s *Server) write(w http.ResponseWriter, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		s.logger.Error("encode answer", "error", err)
		http.Error(w, `{"error":"the answer cannot be encoded","code":"internal"}`, http.StatusInternalServerError)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(stallTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	_, _ = w.Write(append(data, '\n')) // a caller that has gone misses nothing
}

// readBody takes the whole body in, within a bound and a time, so that a slow
// caller holds nothing for ever and a long answer knows no deadline of reading.
func readBody(w http.ResponseWriter, r *http.Request) error {
	if r.ContentLength == 0 {
		return nil
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	_ = control.SetReadDeadline(time.Time{})
	r.Body = io.NopCloser(bytes.NewReader(data))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fmt.Errorf("read request: it has more than %s: %w", spec.Size(MaxBody), ErrInvalid)
	case err != nil:
		return fmt.Errorf("read request: %w: %w", err, ErrInvalid)
	}
	return nil
}

// read decodes a body strictly: what is not known is an error, never ignored.
func read[T any](r *http.Request) (T, error) {
	var value T
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(&value)
	if err == nil && dec.More() {
		err = errors.New("there is more after the first value")
	}
	if err != nil {
		return value, fmt.Errorf("read request: %w: %w", err, ErrInvalid)
	}
	return value, nil
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	info, err := s.cfg.Backend.Info(ctx)
	if err != nil {
		s.fail(w, r, fmt.Errorf("the agent is not ready: %w: %w", err, ErrUnavailable))
		return
	}
	s.write(w, info)
}

func (s *Server) plan(r *http.Request) (spec.Plan, error) {
	req, err := readPlanRequest(r)
	if err != nil {
		return spec.Plan{}, err
	}
	return s.cfg.Backend.Plan(r.Context(), req)
}

func (s *Server) planAndApply(r *http.Request) (Done, error) {
	req, err := readPlanRequest(r)
	if err != nil {
		return Done{}, err
	}
	ctx, cancel := finishing(r)
	defer cancel()
	return s.cfg.Backend.PlanAndApply(ctx, req)
}

func readPlanRequest(r *http.Request) (PlanRequest, error) {
	req, err := read[PlanRequest](r)
	if req.Who == "" {
		req.Who = Who(r.Context())
	}
	return req, err
}

// finishing returns the context of a change: one that was begun is finished,
// also if the caller doesn't wait.
func finishing(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(r.Context()), blockTimeout)
}

func (s *Server) apply(r *http.Request) (ApplyResult, error) {
	plan, err := read[spec.Plan](r)
	if err != nil {
		return ApplyResult{}, err
	}
	ctx, cancel := finishing(r)
	defer cancel()
	return s.cfg.Backend.Apply(ctx, plan)
}

func (s *Server) signal(r *http.Request) (Signalled, error) {
	req, err := read[Signal](r)
	if err != nil {
		return Signalled{}, err
	}
	if !req.Signal.Known() {
		return Signalled{}, fmt.Errorf("%q is not a signal: %w", req.Signal, ErrInvalid)
	}
	n, err := s.cfg.Backend.Signal(r.Context(), req.Target, req.Signal)
	return Signalled{Count: n}, err
}

func (s *Server) shutdown(r *http.Request) (struct{}, error) {
	req, err := read[Shutdown](r)
	if err != nil {
		return struct{}{}, err
	}
	return struct{}{}, s.cfg.Backend.Shutdown(r.Context(), req.StopInstances)
}

// instances answers at once, or as soon as something has changed; 204 says
// that nothing has for a long time.
func (s *Server) instances(w http.ResponseWriter, r *http.Request) {
	after, err := numberOf(r, "after")
	if err != nil {
		s.fail(w, r, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), blockTimeout)
	defer cancel()
	list, index, err := s.cfg.Backend.Instances(ctx, after)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		w.WriteHeader(http.StatusNoContent)
	case err != nil:
		s.fail(w, r, err)
	default:
		w.Header().Set(indexHeader, strconv.FormatUint(index, 10))
		s.write(w, list)
	}
}

// numberOf reads a number from the query; 0 if it isn't there.
func numberOf(r *http.Request, name string) (uint64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s: %q is not a number: %w", name, text, ErrInvalid)
	}
	return n, nil
}
