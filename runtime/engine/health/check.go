package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// checker runs one check of one instance. One goroutine at a time uses it.
type checker interface {
	// check returns what the check says; ctx has the check's deadline.
	check(ctx context.Context) Result
	// close lets go of connections.
	close()
}

// Host is what checks need of the node.
type Host interface {
	// FindOutput returns the first line of an instance's output since a time that
	// matches a regular expression, or false.
	FindOutput(ctx context.Context, id spec.InstanceID, since time.Time, pattern string) (line string, found bool, err error)
	// Prepare returns the path, the directory and the user of a command; only Argv,
	// Dir, Env and User of the launch count.
	Prepare(l *spec.Launch) (path, dir string, as *syscall.Credential, err error)
}

// newChecker makes the checker of a check. Ready tells whether the instance is.
func newChecker(t *Target, h *spec.Health, known Tally, d *deps, ready func() bool) (checker, error) {
	if t.Fault != "" {
		return nil, errors.New(t.Fault)
	}
	kinds := h.Kinds()
	if len(kinds) != 1 {
		return nil, fmt.Errorf("make check %q of %s: it is of %d kinds, and should be of one", h.Name, t.ID, len(kinds))
	}
	switch kinds[0] {
	case spec.HealthHTTP:
		return newHTTPCheck(h, d.transports)
	case spec.HealthTCP:
		return tcpCheck(h.TCP.Text()), nil
	case spec.HealthGRPC:
		return &grpcCheck{health: h}, nil
	case spec.HealthExec:
		return newExecCheck(t, h, d.host), nil
	case spec.HealthLog:
		return &logCheck{id: t.ID, since: t.Since, pattern: h.Log, host: d.host, found: known.Passed, line: known.Output}, nil
	default:
		return notifyCheck(ready), nil
	}
}

// deps are what checkers share.
type deps struct {
	transports *transports
	host       Host
}

// tcpCheck passes if its address takes a connection.
type tcpCheck string

func (c tcpCheck) check(ctx context.Context) Result {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(c))
	if err != nil {
		return Result{Err: explain(ctx, err)}
	}
	conn.Close()
	return Result{Output: "connected"}
}

func (tcpCheck) close() {}

// notifyCheck passes once the instance is ready.
type notifyCheck func() bool

func (c notifyCheck) check(context.Context) Result {
	if !c() {
		return Result{Err: errors.New("READY=1 has not come yet")}
	}
	return Result{Output: "ready"}
}

func (notifyCheck) close() {}

// logCheck passes from the first line on that matches.
type logCheck struct {
	id      spec.InstanceID
	since   time.Time
	pattern string
	host    Host
	found   bool
	line    string
}

func (c *logCheck) check(ctx context.Context) Result {
	if c.found {
		return Result{Output: c.line}
	}
	line, found, err := c.host.FindOutput(ctx, c.id, c.since, c.pattern)
	switch {
	case err != nil:
		return Result{Err: explain(ctx, err)}
	case !found:
		return Result{Err: errors.New("no line of output has matched yet")}
	}
	c.found, c.line = true, line
	return Result{Output: line}
}

func (*logCheck) close() {}

// explain says in words that a check took too long.
func explain(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// Bounds of what is shared: connections that wait for their next use, and
// different ways to trust a server.
const (
	maxIdle    = 4096
	maxTrusts  = 64
	idleFor    = 2 * time.Minute
	bufferSize = 2 << 10
)

// trust is how a server's certificate is judged.
type trust struct {
	caFile     string
	changed    time.Time // of the file
	skipVerify bool
}

// transports are the HTTP connections of all checks, by how servers are trusted.
type transports struct {
	mu sync.Mutex // guards by
	by map[trust]*http.Transport
}

func newTransports() *transports { return &transports{by: map[trust]*http.Transport{}} }

// config returns the TLS settings that a check asks for.
func (t trust) config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.skipVerify}
	if t.caFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(t.caFile)
	if err != nil {
		return nil, fmt.Errorf("read ca_file: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	if !c.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read ca_file: there is no certificate in %s", t.caFile)
	}
	return c, nil
}

// trustOf returns how a check trusts, as its file is now.
func trustOf(h *spec.Health) (trust, error) {
	t := trust{caFile: h.CAFile, skipVerify: h.SkipVerify}
	if t.caFile == "" {
		return t, nil
	}
	info, err := os.Stat(t.caFile)
	if err != nil {
		return t, fmt.Errorf("read ca_file: %w", err)
	}
	t.changed = info.ModTime()
	return t, nil
}

// of returns the transport of a check.
func (t *transports) of(h *spec.Health) (*http.Transport, error) {
	how, err := trustOf(h)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if tr := t.by[how]; tr != nil {
		return tr, nil
	}
	config, err := how.config()
	if err != nil {
		return nil, err
	}
	for other, tr := range t.by {
		if len(t.by) >= maxTrusts || (other.caFile == how.caFile && other.skipVerify == how.skipVerify) {
			tr.CloseIdleConnections()
			delete(t.by, other)
		}
	}
	tr := &http.Transport{
		TLSClientConfig: config, MaxIdleConns: maxIdle, MaxIdleConnsPerHost: 2, IdleConnTimeout: idleFor,
		DisableCompression: true, ReadBufferSize: bufferSize, WriteBufferSize: bufferSize, MaxResponseHeaderBytes: maxBody,
	}
	t.by[how] = tr
	return tr, nil
}

// close closes what is idle, which is all once no check runs.
func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range t.by {
		tr.CloseIdleConnections()
	}
}
