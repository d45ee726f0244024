package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/synergymesh/meshrun/runtime/state"
)

// Sentinels. Backends wrap them, or return an *Error to add a hint; on the
// client's side errors.Is works the same.
var (
	// ErrStale: the state has moved since the plan was made.
	ErrStale = errors.New("the plan is stale")
	// ErrNotFound: there is nothing of that name.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the request cannot be done as it is.
	ErrInvalid = errors.New("invalid request")
	// ErrForbidden: the caller may not use this agent.
	ErrForbidden = errors.New("permission denied")
	// ErrUnavailable: the agent cannot do it now; trying again may help.
	ErrUnavailable = errors.New("not available now")
	// ErrPartial: a part of what was asked for is missing in what was answered,
	// or was not done, because some nodes could not be asked.
	ErrPartial = errors.New("not all nodes have answered")
	// ErrNoAgent: nobody answers on the socket. Only clients return it.
	ErrNoAgent = errors.New("no agent answers")
)

// Error is an error as it crosses the socket.
type Error struct {
	// Message says what is wrong, in full.
	Message string `json:"error"`
	// Code names the sentinel: stale, not_found, invalid, forbidden,
	// unavailable, partial; internal for all others.
	Code string `json:"code"`
	// Hint says what to do next, if the message doesn't.
	Hint string `json:"hint,omitempty"`
}

// Error returns the message and, if there is one, the hint.
func (e *Error) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + ": " + e.Hint
}

// Unwrap returns the sentinel that Code names, or nil.
func (e *Error) Unwrap() error {
	for _, k := range kinds() {
		if k.code == e.Code {
			return k.sentinel
		}
	}
	return nil
}

// Errorf returns an error that says just what the format does, and wraps one
// of this package's sentinels.
func Errorf(sentinel error, format string, args ...any) error {
	e := &Error{Message: fmt.Sprintf(format, args...), Code: codeInternal}
	for _, k := range kinds() {
		if k.sentinel == sentinel {
			e.Code = k.code
		}
	}
	return e
}

// kind is a sentinel as code and HTTP status.
type kind struct {
	sentinel error
	code     string
	status   int
	store    error // the store's own word for the same; nil if it has none
}

const codeInternal = "internal"

func kinds() []kind {
	return []kind{
		{ErrPartial, "partial", http.StatusBadGateway, nil}, // before what kept the other nodes from answering
		{ErrStale, "stale", http.StatusConflict, nil},
		{ErrNotFound, "not_found", http.StatusNotFound, nil},
		{ErrInvalid, "invalid", http.StatusBadRequest, nil},
		{ErrForbidden, "forbidden", http.StatusForbidden, state.ErrDenied},
		{ErrUnavailable, "unavailable", http.StatusServiceUnavailable, state.ErrUnavailable},
	}
}

// wireError returns the error as it crosses the socket, and its HTTP status.
func wireError(err error) (*Error, int) {
	out := &Error{Message: err.Error(), Code: codeInternal}
	if given, ok := err.(*Error); ok {
		out.Message, out.Hint = given.Message, given.Hint
	}
	for _, k := range kinds() {
		if errors.Is(err, k.sentinel) || (k.store != nil && errors.Is(err, k.store)) {
			out.Code = k.code
			return out, k.status
		}
	}
	return out, http.StatusInternalServerError
}
