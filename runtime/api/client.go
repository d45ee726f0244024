package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Bounds of the client.
const (
	dialTimeout = 5 * time.Second
	// callTimeout bounds a call whose context has no deadline.
	callTimeout = 2 * time.Minute
	// maxErrorBody is how much of an error's text is read.
	maxErrorBody = 1 << 20
)

// Client speaks to an agent. It is a Backend, and safe for concurrent use.
type Client struct {
	path string
	err  error // of an address that cannot be used
	http *http.Client
}

var _ Backend = (*Client)(nil)

// NewClient returns a client of the agent at an address: the path of its
// socket, with or without "unix://" before it. It connects to nothing; an
// address that cannot be used is the error of every call.
func NewClient(addr string) *Client {
	c := &Client{path: strings.TrimPrefix(strings.TrimPrefix(addr, "unix:"), "//")}
	switch {
	case strings.Contains(c.path, "://"):
		c.err = fmt.Errorf("use agent at %s: this version's agents answer on unix sockets only: give the path of an agent.sock: %w", addr, ErrInvalid)
	case len(c.path) > MaxSocketPath:
		c.err = fmt.Errorf("use agent at %s: the path has %d bytes and a socket's may have %d: choose a shorter -data-dir: %w",
			c.path, len(c.path), MaxSocketPath, ErrInvalid)
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:        c.dial,
		DisableCompression: true,
		MaxIdleConns:       4,
		IdleConnTimeout:    idleTimeout / 2, // before the server's, so that no request meets a closing connection
	}}
	return c
}

// Close lets the idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address returns the path of the agent's socket.
func (c *Client) Address() string { return c.path }

func (c *Client) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "unix", c.path)
	switch {
	case err == nil:
		return conn, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ENOTSOCK):
		return nil, c.noAgent()
	case errors.Is(err, fs.ErrPermission):
		return nil, c.notOurs()
	default:
		return nil, fmt.Errorf("connect to agent: %w", err)
	}
}

func (c *Client) noAgent() error {
	return &noAgentError{path: c.path}
}

// noAgentError is ErrNoAgent with what to do about it.
type noAgentError struct{ path string }

func (e *noAgentError) Error() string {
	return fmt.Sprintf("no agent answers on %s: start one with `meshrun agent`, or `meshrun up PATH`", e.path)
}

func (e *noAgentError) Unwrap() error { return ErrNoAgent }

// notOurs says whose socket it is that we may not open.
func (c *Client) notOurs() error {
	owner := "another user"
	for path := c.path; ; path = filepath.Dir(path) {
		if info, err := os.Stat(path); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				owner = userName(stat.Uid)
			}
			break
		}
		if path == filepath.Dir(path) {
			break
		}
	}
	return &Error{
		Message: fmt.Sprintf("permission denied: the agent at %s belongs to %s, and you are %s", c.path, owner, userName(ownUID())),
		Code:    "forbidden",
		Hint:    fmt.Sprintf("run the command as %s, or start your own agent with another -data-dir", orRoot(owner)),
	}
}

// send sends a request and returns an answer whose status is below 400.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	if c.err != nil {
		return nil, c.err
	}
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://meshrun"+path, reader)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.sendError(ctx, err)
	}
	if res.StatusCode < http.StatusBadRequest {
		return res, nil
	}
	defer res.Body.Close()
	return nil, readError(res)
}

// sendError makes an error that speaks of the agent and not of HTTP.
func (c *Client) sendError(ctx context.Context, err error) error {
	var none *noAgentError
	var wire *Error
	switch {
	case errors.As(err, &none):
		return none
	case errors.As(err, &wire):
		return wire
	case ctx.Err() != nil:
		return fmt.Errorf("wait for the agent: %w", context.Cause(ctx))
	case isCut(err):
		return fmt.Errorf("the agent at %s went away in the middle of an answer: %w", c.path, ErrUnavailable)
	default:
		return fmt.Errorf("ask the agent at %s: %w", c.path, err)
	}
}

// isCut reports whether the other end died.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// readError reads the error that an agent answered with.
func readError(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, maxErrorBody))
	wire := new(Error)
	if err != nil || json.Unmarshal(text, wire) != nil || wire.Message == "" {
		return fmt.Errorf("the agent answered %s: %.200s", res.Status, strings.TrimSpace(string(text)))
	}
	return wire
}

// call sends a request and decodes the answer.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var value T
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	res, err := c.send(ctx, method, path, body)
	if err != nil {
		return value, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&value); err != nil {
		return value, c.sendError(ctx, err)
	}
	return value, nil
}
