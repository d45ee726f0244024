package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// endpoint is one request of the API and its answer, declared once for both
// ends: the server serves it and the client calls it. Q is the body of the
// request and A that of the answer; none stands for no body.
type endpoint[Q, A any] struct {
	method string
	// path is as http.ServeMux takes it; it has at most one wildcard, {name}.
	path string
	do   func(ctx context.Context, b Backend, name string, body Q) (A, error)
	// finishes lets a change go on to its end when the caller has gone.
	finishes bool
	// agentsOnly refuses people: only another agent may call it.
	agentsOnly bool
}

// none is no body.
type none struct{}

// serve adds the endpoint to the server's routes.
func (e *endpoint[Q, A]) serve(s *Server, mux *http.ServeMux) {
	mux.HandleFunc(e.method+" "+e.path, func(w http.ResponseWriter, r *http.Request) {
		answer, err := e.handle(s, w, r)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.write(w, answer)
	})
}

func (e *endpoint[Q, A]) handle(s *Server, w http.ResponseWriter, r *http.Request) (answer A, err error) {
	if e.agentsOnly && !peerOfRequest(r).agent {
		return answer, fmt.Errorf("%s %s: only another agent may call it: %w", e.method, e.path, ErrForbidden)
	}
	if err := readBody(w, r); err != nil {
		return answer, err
	}
	body, err := decodeBody[Q](r)
	if err != nil {
		return answer, err
	}
	ctx := r.Context()
	if e.finishes {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), blockTimeout)
		defer cancel()
	}
	return e.do(ctx, s.cfg.Backend, r.PathValue("name"), body)
}

// call asks an agent. Name fills the path's wildcard.
func (e *endpoint[Q, A]) call(ctx context.Context, c *Client, name string, body Q) (answer A, err error) {
	ctx, cancel := boundedBy(ctx, callTimeout)
	defer cancel()
	var encoded any = body
	if isNone[Q]() {
		encoded = nil
	}
	res, err := c.send(ctx, e.method, pathTo(e.path, name), encoded)
	if err != nil {
		return answer, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return answer, c.sendError(ctx, err)
	}
	return answer, nil
}

// decodeBody decodes a request's body strictly: an unknown field is an error.
func decodeBody[Q any](r *http.Request) (body Q, err error) {
	if isNone[Q]() {
		return body, nil
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err = dec.Decode(&body); err == nil && dec.More() {
		err = errors.New("there is more after the first value")
	}
	if err != nil {
		return body, fmt.Errorf("read request: %w: %w", err, ErrInvalid)
	}
	return body, nil
}

func isNone[T any]() bool {
	_, is := any(*new(T)).(none)
	return is
}

// pathTo fills the wildcard of an endpoint's path.
func pathTo(path, name string) string {
	return strings.Replace(path, "{name}", url.PathEscape(name), 1)
}

// boundedBy gives a context a deadline unless it has one.
func boundedBy(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, timeout)
}

// blocking is a GET endpoint whose answer has a mark: an index or a tag. A
// caller that sends the mark of an answer is answered when there is another
// one. The server answers 204 if nothing changes for blockTimeout, and the
// client asks again.
type blocking[A any] struct {
	path string
	do   func(ctx context.Context, b Backend, name, after string) (answer A, mark string, err error)
}

const (
	// markHeader carries the mark of an answer.
	markHeader = "Meshrun-Index"
	// afterParam carries the mark that the caller has.
	afterParam = "after"
)

func (e *blocking[A]) serve(s *Server, mux *http.ServeMux) {
	mux.HandleFunc("GET "+e.path, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), blockTimeout)
		defer cancel()
		answer, mark, err := e.do(ctx, s.cfg.Backend, r.PathValue("name"), r.URL.Query().Get(afterParam))
		switch {
		case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
			w.WriteHeader(http.StatusNoContent)
		case err != nil:
			s.fail(w, r, err)
		default:
			w.Header().Set(markHeader, mark)
			s.write(w, answer)
		}
	})
}

// call asks until there is an answer with another mark than after.
func (e *blocking[A]) call(ctx context.Context, c *Client, name, after string) (A, string, error) {
	for {
		answer, mark, changed, err := e.callOnce(ctx, c, name, after)
		if err != nil || changed {
			return answer, mark, err
		}
	}
}

func (e *blocking[A]) callOnce(ctx context.Context, c *Client, name, after string) (answer A, mark string, changed bool, err error) {
	ctx, cancel := boundedBy(ctx, blockTimeout+callTimeout)
	defer cancel()
	res, err := c.send(ctx, http.MethodGet, pathTo(e.path, name)+"?"+afterParam+"="+url.QueryEscape(after), nil)
	if err != nil {
		return answer, "", false, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNoContent {
		return answer, after, false, nil
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return answer, "", false, c.sendError(ctx, err)
	}
	return answer, res.Header.Get(markHeader), true, nil
}

// stream is a GET endpoint that answers with one value per line. Q is the
// query, which travels as JSON in one parameter.
type stream[Q, T any] struct {
	path string
	// query has the defaults of what a caller leaves out.
	query Q
	do    func(ctx context.Context, b Backend, query Q, each func(T) error) error
}

// queryParam carries the query of a stream.
const queryParam = "q"

// serve adds the stream to the routes. An error before the first value is an
// ordinary error; a later one is in the trailer.
func (e *stream[Q, T]) serve(s *Server, mux *http.ServeMux) {
	mux.HandleFunc("GET "+e.path, func(w http.ResponseWriter, r *http.Request) {
		query := e.query
		if err := json.Unmarshal([]byte(r.URL.Query().Get(queryParam)), &query); err != nil {
			s.fail(w, r, fmt.Errorf("read query: %w: %w", err, ErrInvalid))
			return
		}
		lines := newLineWriter(w)
		err := e.do(r.Context(), s.cfg.Backend, query, func(value T) error { return lines.write(value) })
		if s.ctx.Err() != nil {
			err = errClosing
		}
		if begun := lines.close(); err != nil && !begun {
			s.fail(w, r, err)
		} else if err != nil {
			setTrailer(w, err)
		}
	})
}

// call calls each with every value until the stream ends.
func (e *stream[Q, T]) call(ctx context.Context, c *Client, query Q, each func(T) error) error {
	text, err := json.Marshal(query)
	if err != nil {
		return fmt.Errorf("encode query: %w", err)
	}
	res, err := c.send(ctx, http.MethodGet, e.path+"?"+queryParam+"="+url.QueryEscape(string(text)), nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	dec := json.NewDecoder(res.Body)
	for {
		var value T
		err := dec.Decode(&value)
		if errors.Is(err, io.EOF) {
			return trailerError(res)
		}
		if err != nil {
			return c.sendError(ctx, err)
		}
		if err := each(value); err != nil {
			return err
		}
	}
}

// errorTrailer carries the error that ended a stream.
const errorTrailer = "Meshrun-Error"

func setTrailer(w http.ResponseWriter, err error) {
	wire, _ := wireError(err)
	text, _ := json.Marshal(wire) // strings always can be
	w.Header().Set(errorTrailer, string(text))
}

// trailerError returns the error that ended a stream whose body was read.
func trailerError(res *http.Response) error {
	text := res.Trailer.Get(errorTrailer)
	if text == "" {
		return nil
	}
	wire := new(Error)
	if err := json.Unmarshal([]byte(text), wire); err != nil {
		return fmt.Errorf("the stream ended with an unreadable error: %.200s", text)
	}
	return wire
}
