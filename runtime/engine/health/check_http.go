package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"

	"github.com/synergymesh/meshrun/spec"
)

// maxBody is how much of an answer is read; maxShown how much of it is shown.
const (
	maxBody  = 64 << 10
	maxShown = 512
)

// httpCheck asks an address over HTTP.
type httpCheck struct {
	health     *spec.Health
	transports *transports
	url        *url.URL
	header     http.Header
	host       string
	right      []spec.StatusRange
	body       *regexp.Regexp
}

// newHTTPCheck makes a check of what spec.Validate has seen; the address is
// known only here.
func newHTTPCheck(h *spec.Health, t *transports) (*httpCheck, error) {
	c := &httpCheck{health: h, transports: t, header: http.Header{"User-Agent": {"meshrun-health"}}}
	var err error
	if c.url, err = url.Parse(h.URL.Text()); err != nil || c.url.Host == "" {
		return nil, errors.New("make request: the url is no whole address on this node")
	}
	if user := c.url.User; user != nil {
		password, _ := user.Password()
		request := http.Request{Header: c.header}
		request.SetBasicAuth(user.Username(), password)
	}
	for name, value := range h.Headers {
		if http.CanonicalHeaderKey(name) == "Host" {
			c.host = value.Text()
			continue
		}
		c.header.Set(name, value.Text())
	}
	for _, s := range h.Status {
		r, err := spec.ParseStatusRange(s)
		if err != nil {
			return nil, err
		}
		c.right = append(c.right, r)
	}
	if c.right == nil {
		c.right = []spec.StatusRange{{First: 200, Last: 399}}
	}
	if h.Body != "" {
		if c.body, err = regexp.Compile(h.Body); err != nil {
			return nil, fmt.Errorf("read body: %w", err)
		}
	}
	return c, nil
}

func (c *httpCheck) check(ctx context.Context) Result {
	transport, err := c.transports.of(c.health)
	if err != nil {
		return Result{Err: err}
	}
	method := c.health.Method
	if method == "" {
		method = http.MethodGet
	}
	// The transport follows no redirects, and keeps no cookies.
	request := (&http.Request{
		Method: method, URL: c.url, Host: c.host, Header: c.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}).WithContext(ctx)
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return Result{Err: explain(ctx, err)}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxBody))
	if err != nil {
		return Result{Err: explain(ctx, fmt.Errorf("read body: %w", err))}
	}
	return c.judge(answer.StatusCode, body)
}

// judge says whether an answer is right.
func (c *httpCheck) judge(status int, body []byte) Result {
	shown := string(bytes.TrimSpace(body))
	if len(shown) > maxShown {
		shown = shown[:maxShown] + "…"
	}
	r := Result{Output: fmt.Sprintf("HTTP %d\n%s", status, shown)}
	right := false
	for _, s := range c.right {
		right = right || (status >= s.First && status <= s.Last)
	}
	switch {
	case !right:
		r.Err, r.Output = fmt.Errorf("HTTP %d", status), shown
	case c.body != nil && !c.body.Match(body):
		r.Err, r.Output = fmt.Errorf("HTTP %d, and the body does not match", status), shown
	}
	return r
}

func (c *httpCheck) close() {}
