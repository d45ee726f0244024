package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /v1/snapshot", s.saveSnapshot)
	mux.HandleFunc("PUT /v1/snapshot", s.restoreSnapshot)
	for _, route := range routes() {
		route.serve(s, mux)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, &Error{
			Message: fmt.Sprintf("no endpoint %s %s", r.Method, r.URL.Path), Code: "not_found",
			Hint: "the command may be newer than the agent: upgrade it with `meshrun upgrade`",
		})
	})
	return mux
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
