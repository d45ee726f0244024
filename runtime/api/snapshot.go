package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/runtime/state"
)

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
		setTrailer(w, err)
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
