package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Consul is the part of a Consul agent's API that the tests need to look at
// what meshrun keeps there. It is not meshrun's own client, so that a fault in
// that one cannot hide itself.
type Consul struct {
	client http.Client
	base   string
}

// newConsul returns the API at a unix socket.
func newConsul(socket string) *Consul {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}
	return &Consul{
		client: http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 5 * time.Second},
		base:   "http://consul",
	}
}

// ConsulAt returns the API at an address such as 127.0.0.1:8500.
func ConsulAt(addr string) *Consul {
	return &Consul{client: http.Client{Timeout: 5 * time.Second}, base: "http://" + addr}
}

// do sends a request and returns the answer's body. An answer that is not 200
// is an error, but for 404, whose body is nil.
func (c *Consul) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask Consul: %w", err)
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask Consul: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask Consul for %s: %w", path, err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, nil
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("ask Consul for %s: %s: %s", path, resp.Status, strings.TrimSpace(string(text)))
	}
	return text, nil
}

// Get reads JSON from a path into out, which stays as it is if nothing is there.
func (c *Consul) Get(ctx context.Context, path string, out any) error {
	text, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil || text == nil {
		return err
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("read what Consul says of %s: %w", path, err)
	}
	return nil
}

// Entry is a key of Consul's KV store.
type Entry struct {
	Key     string
	Value   []byte
	Session string
	// LockIndex counts how often the lock was taken; ModifyIndex is the raft
	// index of the last change.
	LockIndex, ModifyIndex uint64
}

// List returns all keys that begin with the prefix, sorted.
func (c *Consul) List(ctx context.Context, prefix string) ([]Entry, error) {
	var list []Entry
	err := c.Get(ctx, "/v1/kv/"+prefix+"?recurse", &list)
	return list, err
}

// Put writes a key, and takes its lock if session is not "". It reports
// whether Consul did it.
func (c *Consul) Put(ctx context.Context, key, session string, value []byte) (bool, error) {
	path := "/v1/kv/" + key
	if session != "" {
		path += "?acquire=" + url.QueryEscape(session)
	}
	text, err := c.do(ctx, http.MethodPut, path, value)
	return strings.TrimSpace(string(text)) == "true", err
}

// Session is a session of Consul.
type Session struct {
	ID, Name string
	// Node is the node of the Consul agent that it was made at.
	Node string
}

// Holder returns the session that holds a key's lock.
func (c *Consul) Holder(ctx context.Context, key string) (Session, error) {
	list, err := c.List(ctx, key)
	if err != nil {
		return Session{}, err
	}
	if len(list) == 0 || list[0].Key != key || list[0].Session == "" {
		return Session{}, fmt.Errorf("nobody holds %s", key)
	}
	var sessions []Session
	if err := c.Get(ctx, "/v1/session/info/"+list[0].Session, &sessions); err != nil {
		return Session{}, err
	}
	if len(sessions) != 1 {
		return Session{}, fmt.Errorf("the session that held %s has just ended", key)
	}
	return sessions[0], nil
}

// NewSession makes a session of the agent's node with Consul's own check of it.
func (c *Consul) NewSession(ctx context.Context, ttl, lockDelay time.Duration) (string, error) {
	body, err := json.Marshal(map[string]string{"TTL": ttl.String(), "LockDelay": lockDelay.String(), "Behavior": "delete"})
	if err != nil {
		return "", err
	}
	text, err := c.do(ctx, http.MethodPut, "/v1/session/create", body)
	if err != nil {
		return "", err
	}
	var made struct{ ID string }
	if err := json.Unmarshal(text, &made); err != nil {
		return "", fmt.Errorf("create session: %w", err)
	}
	return made.ID, nil
}

// Metrics returns the agent's counts and gauges by name; the values of one
// name that differ in their labels are added up.
func (c *Consul) Metrics(ctx context.Context) (map[string]float64, error) {
	text, err := c.do(ctx, http.MethodGet, "/v1/agent/metrics?format=prometheus", nil)
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 || strings.HasPrefix(line, "#") {
			continue
		}
		value, err := strconv.ParseFloat(f[len(f)-1], 64)
		if err != nil || value != value { // a summary without a sample is NaN
			continue
		}
		name, _, _ := strings.Cut(f[0], "{")
		sums[name] += value
	}
	return sums, nil
}
