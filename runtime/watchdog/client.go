package watchdog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// ErrUnreachable: no watchdog answers on the data directory's socket.
var ErrUnreachable = errors.New("watchdog is unreachable")

// clientTimeout bounds every request except the stream of events.
const clientTimeout = 30 * time.Second

// Client calls the watchdog of a data directory. Its methods may be called from
// several goroutines. Errors wrap ErrUnreachable if no watchdog answers, and
// ErrRefused if the request is invalid.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client for the watchdog of a data directory. It connects
// with the first request.
func NewClient(dataDir string) *Client {
	socket := filepath.Join(dataDir, "watchdog", socketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext: dial, DisableKeepAlives: true}}}
}

// Table returns all instances, as of event Seq of the table.
func (c *Client) Table(ctx context.Context) (spec.Table, error) {
	var t spec.Table
	err := c.callAgain(ctx, http.MethodGet, "/v1/table", nil, &t)
	return t, err
}

// Declare sets launches and removes instances: all of them or, on an error,
// none. Declaring what is declared already changes nothing.
func (c *Client) Declare(ctx context.Context, set []spec.Launch, remove []spec.InstanceID) error {
	return c.callAgain(ctx, http.MethodPost, "/v1/declare", declareRequest{Set: set, Remove: remove}, nil)
}

// Renew makes a session's lease valid until a time, later or earlier than
// before; see spec.Lease, and Boottime for its clock. The time may be at most a
// minute ahead. A time that has passed, such as 0, stops at once what runs
// under the lease.
//
// Do not renew concurrently: any of the renewals may be the last to take
// effect.
func (c *Client) Renew(ctx context.Context, l spec.Lease) error {
	return c.callAgain(ctx, http.MethodPut, "/v1/lease", l, nil)
}

// Signal sends a signal to the process groups of instances. If one of them has
// no process, no signal is sent.
func (c *Client) Signal(ctx context.Context, ids []spec.InstanceID, sig spec.Signal) error {
	return c.call(ctx, http.MethodPost, "/v1/signal", signalRequest{IDs: ids, Signal: sig}, nil)
}

// Health returns the state of the watchdog.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.callAgain(ctx, http.MethodGet, "/v1/health", nil, &h)
	return h, err
}

// Upgrade makes the watchdog replace its program by the one that is installed
// now. It returns when that has begun. Instances are not affected.
func (c *Client) Upgrade(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/upgrade", struct{}{}, nil)
}

// Shutdown ends the watchdog: either after it has stopped all instances, the
// agent last, or at once, leaving the instances to a successor. It returns when
// that has begun.
func (c *Client) Shutdown(ctx context.Context, stopInstances bool) error {
	return c.call(ctx, http.MethodPost, "/v1/shutdown", shutdownRequest{StopInstances: stopInstances}, nil)
}

// Events calls fn for every event after a number, including those to come,
// until ctx ends, fn fails, or the connection breaks; the error says which. An
// event of type spec.EventJournalGap means that events are missing: read the
// table again.
func (c *Client) Events(ctx context.Context, after uint64, fn func(spec.Event) error) error {
	path := "/v1/events?follow=1&after=" + strconv.FormatUint(after, 10)
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(bufio.NewReaderSize(resp.Body, 64<<10))
	for {
		var e spec.Event
		if err := dec.Decode(&e); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("watch events: %w: %w", ErrUnreachable, err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}

// retries and retryDelay say how often and how soon a request is repeated that
// broke off because the watchdog was upgraded at that moment.
const (
	retries    = 20
	retryDelay = 25 * time.Millisecond
)

// callAgain is call for idempotent requests.
func (c *Client) callAgain(ctx context.Context, method, path string, in, out any) error {
	for i := 0; ; i++ {
		err := c.call(ctx, method, path, in, out)
		if err == nil || i == retries || !errors.Is(err, errBrokenOff) {
			return err
		}
		if loop.Sleep(ctx, retryDelay) != nil {
			return context.Cause(ctx)
		}
	}
}

// errBrokenOff: the watchdog accepted a connection and ended before it
// answered.
var errBrokenOff = errors.New("broke off")

// call sends a request and decodes the response.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, clientTimeout)
	defer cancel()
	var b []byte
	if in != nil {
		var err error
		if b, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	resp, err := c.send(ctx, method, path, b)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	} else {
		err = json.NewDecoder(resp.Body).Decode(out)
	}
	if err != nil {
		return fmt.Errorf("read response of watchdog: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://watchdog"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
			err = fmt.Errorf("%w: %w", errBrokenOff, err)
		}
		return nil, fmt.Errorf("call watchdog on %s: %w: %w", c.socket, ErrUnreachable, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var e errorReply
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&e); err != nil || e.Error == "" {
		e.Error = resp.Status
	}
	switch resp.StatusCode {
	case http.StatusUnprocessableEntity:
		return nil, &answerError{e.Error, ErrRefused}
	case http.StatusServiceUnavailable:
		return nil, &answerError{e.Error, fmt.Errorf("%w: %w", ErrUnreachable, errBrokenOff)}
	}
	return nil, errors.New(e.Error)
}

// answerError carries the watchdog's error text and a sentinel.
type answerError struct {
	words string
	kind  error
}

func (e *answerError) Error() string { return e.words }
func (e *answerError) Unwrap() error { return e.kind }
