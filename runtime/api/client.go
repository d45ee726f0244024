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
	"net/url"
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
// What the context of a call carries as Call goes with the request.
type Client struct {
	path string // of the socket
	url  string // instead of path: "https://host:port"
	call Call   // where the context carries none
	err  error  // of an address that cannot be used
	http *http.Client
}

var _ Backend = (*Client)(nil)

// ClientConfig says which agent a client speaks to, and how.
type ClientConfig struct {
	// Address is the path of the agent's socket, with or without "unix://"
	// before it, or "https://host:port".
	Address string
	// Credentials are needed for https, and unused otherwise.
	Credentials Credentials
	// Node is whose certificate the agent must show; "" for one that names the
	// host in the address.
	Node string
	// Call goes with what is asked outside of a request.
	Call Call
}

// NewClient returns a client of the agent whose socket has a path.
func NewClient(path string) *Client { return NewClientOf(ClientConfig{Address: path}) }

// NewClientOf returns a client of an agent. It connects to nothing; an address
// that cannot be used is the error of every call.
func NewClientOf(cfg ClientConfig) *Client {
	c := &Client{call: cfg.Call}
	transport := &http.Transport{
		DisableCompression:  true,
		MaxIdleConns:        4,
		IdleConnTimeout:     idleTimeout / 2, // before the server's, so that no request meets a closing connection
		TLSHandshakeTimeout: dialTimeout,
	}
	c.http = &http.Client{Transport: transport}
	if strings.HasPrefix(cfg.Address, "https://") {
		c.err = c.useNetwork(&cfg, transport)
		return c
	}
	c.path = strings.TrimPrefix(strings.TrimPrefix(cfg.Address, "unix:"), "//")
	transport.DialContext = c.dial
	switch {
	case strings.Contains(c.path, "://"):
		c.err = fmt.Errorf("use agent at %s: write the path of an agent.sock, or https://HOST:PORT: %w", cfg.Address, ErrInvalid)
	case len(c.path) > MaxSocketPath:
		c.err = fmt.Errorf("use agent at %s: the path has %d bytes and a socket's may have %d: choose a shorter -data-dir: %w",
			c.path, len(c.path), MaxSocketPath, ErrInvalid)
	}
	return c
}

// useNetwork makes the client speak TLS to a host.
func (c *Client) useNetwork(cfg *ClientConfig, transport *http.Transport) error {
	u, err := url.Parse(cfg.Address)
	if err != nil || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
		return fmt.Errorf("use agent at %s: write https://HOST:PORT: %w", cfg.Address, ErrInvalid)
	}
	c.url = "https://" + u.Host
	if cfg.Credentials == nil {
		return fmt.Errorf("use agent at %s: an agent lets nobody in who shows no certificate: give one with -cert-file, -key-file and -ca-file: %w", cfg.Address, ErrInvalid)
	}
	node := cfg.Node
	if node == "" {
		node = u.Hostname()
	}
	transport.TLSClientConfig = clientTLS(cfg.Credentials, node)
	transport.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext
	return nil
}

// Close lets the idle connections go.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address returns the path of the agent's socket, or its URL.
func (c *Client) Address() string { return c.path + c.url }

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
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	return c.sendBody(ctx, method, path, reader)
}

// sendBody is send with a body that is JSON, or whatever the path takes.
func (c *Client) sendBody(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	if c.err != nil {
		return nil, c.err
	}
	base := c.url
	if base == "" {
		base = "http://meshrun"
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	call, given := ctx.Value(callKey{}).(Call)
	if !given {
		call = c.call
	}
	call.mark(req)
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
	var untrusted *untrustedError
	var network *net.OpError
	switch {
	case errors.As(err, &none):
		return none
	case errors.As(err, &wire):
		return wire
	case errors.As(err, &untrusted):
		return untrusted
	case errors.As(err, &network) && network.Op == "remote error":
		// The other end has ended the handshake, and says no more than a word.
		return fmt.Errorf("the agent at %s refuses our certificate (%w); its log says why: %w", c.Address(), network.Err, ErrForbidden)
	case c.url != "" && ctx.Err() == nil && errors.As(err, &network) && network.Op == "dial":
		return fmt.Errorf("no agent answers at %s: %w: %w", c.url, network.Err, ErrNoAgent)
	case ctx.Err() != nil:
		return fmt.Errorf("wait for the agent: %w", context.Cause(ctx))
	case isSlow(err):
		return fmt.Errorf("the agent at %s does not answer: %w", c.Address(), ErrUnavailable)
	case isCut(err):
		return fmt.Errorf("the agent at %s went away in the middle of an answer: %w", c.Address(), ErrUnavailable)
	default:
		return fmt.Errorf("ask the agent at %s: %w", c.Address(), err)
	}
}

// isCut reports whether the other end died.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// isSlow reports whether the other end let a bound of time pass.
func isSlow(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
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

// Healthy returns nil if an agent answers.
func (c *Client) Healthy(ctx context.Context) error {
	res, err := c.send(ctx, http.MethodGet, "/healthz", nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
