package health

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/synergymesh/meshrun/spec"
)

// generous is a deadline that is not to be met by chance.
const generous = 20 * time.Second

// once runs a check once.
func once(t *testing.T, h spec.Health, timeout time.Duration) Result {
	t.Helper()
	r := New(Config{Host: host{}})
	defer r.transports.close()
	c, err := r.cfg.make(&Target{Dir: "/", Env: []string{"PATH=/usr/bin:/bin", "WHO=me"}}, &h, NewTally(h.Name), func() bool { return true })
	if err != nil {
		return Result{Err: err}
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	return c.check(ctx)
}

// host searches output with find, and runs commands as this user.
type host struct {
	find func(ctx context.Context, id spec.InstanceID, since time.Time, pattern string) (string, bool, error)
}

func (h host) FindOutput(ctx context.Context, id spec.InstanceID, since time.Time, pattern string) (string, bool, error) {
	return h.find(ctx, id, since, pattern)
}

func (host) Prepare(l *spec.Launch) (path, dir string, as *syscall.Credential, err error) {
	return l.Argv[0], l.Dir, nil, nil
}

// wantResult compares a result with "" for a pass, or a part of what it says.
func wantResult(t *testing.T, name string, r Result, fault string) {
	t.Helper()
	switch {
	case fault == "" && r.Err != nil:
		t.Errorf("%s: it fails: %v: %s", name, r.Err, r.Output)
	case fault != "" && (r.Err == nil || !strings.Contains(r.text(), fault)):
		t.Errorf("%s: it says %v %q, want %q", name, r.Err, r.Output, fault)
	}
}

func TestHTTPCheck(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s", r.Method, r.Host, r.Header.Get("X-Shard"))
	})
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the database is away", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/down", http.StatusFound) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	tests := map[string]struct {
		health spec.Health
		fault  string
	}{
		"answers":                  {spec.Health{URL: "/ok"}, ""},
		"body matches":             {spec.Health{URL: "/ok", Body: `^GET 127\.`}, ""},
		"body does not":            {spec.Health{URL: "/ok", Body: "^POST"}, "HTTP 200, and the body does not match"},
		"method, host and headers": {spec.Health{URL: "/ok", Method: "POST", Headers: map[string]spec.Template{"Host": "shop", "X-Shard": "3"}, Body: "^POST shop 3$"}, ""},
		"error":                    {spec.Health{URL: "/down"}, "HTTP 503\nthe database is away"},
		"error that is right":      {spec.Health{URL: "/down", Status: []string{"200", "500-599"}}, ""},
		"code that is not":         {spec.Health{URL: "/ok", Status: []string{"204"}}, "HTTP 200"},
		"redirect is not followed": {spec.Health{URL: "/moved"}, ""},
		"endless answer is cut":    {spec.Health{URL: "/endless", Body: "^\x00"}, ""},
	}
	for name, test := range tests {
		test.health.URL = spec.Literal(server.URL + string(test.health.URL))
		wantResult(t, name, once(t, test.health, generous), test.fault)
	}
	wantResult(t, "slow", once(t, spec.Health{URL: spec.Literal(server.URL + "/slow")}, 50*time.Millisecond), "no answer in time")
	server.Close()
	wantResult(t, "gone", once(t, spec.Health{URL: spec.Literal(server.URL + "/ok?token=secret")}, generous), "refused")
	if r := once(t, spec.Health{URL: spec.Literal(server.URL + "/ok?token=secret")}, generous); strings.Contains(r.text(), "secret") {
		t.Errorf("it tells a secret: %s", r.text())
	}
}

func TestHTTPCheckJudgesCertificates(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	h := spec.Health{URL: spec.Literal(server.URL), Status: []string{"404"}}
	wantResult(t, "unknown authority", once(t, h, generous), "certificate")
	h.CAFile = file
	wantResult(t, "no file", once(t, h, generous), "read ca_file")
	if err := os.WriteFile(file, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantResult(t, "no certificate", once(t, h, generous), "there is no certificate")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	wantResult(t, "own authority", once(t, h, generous), "")
	wantResult(t, "whoever answers", once(t, spec.Health{URL: h.URL, Status: h.Status, SkipVerify: true}, generous), "")
}

func TestHTTPChecksKeepTheirConnection(t *testing.T) {
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	r := New(Config{})
	h := spec.Health{URL: spec.Literal(server.URL)}
	c, err := r.cfg.make(&Target{}, &h, Tally{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		wantResult(t, "not found", c.check(t.Context()), "HTTP 404")
	}
	r.transports.close()
	server.Close()
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
}

func TestTCPCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := spec.Health{TCP: spec.Literal(l.Addr().String())}
	wantResult(t, "listening", once(t, h, generous), "")
	l.Close()
	wantResult(t, "closed", once(t, h, generous), "refused")
}

func TestGRPCCheck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, service := grpc.NewServer(), grpchealth.NewServer()
	healthpb.RegisterHealthServer(server, service)
	service.SetServingStatus("cart", healthpb.HealthCheckResponse_NOT_SERVING)
	done := make(chan error)
	go func() { done <- server.Serve(l) }()
	h := spec.Health{GRPC: spec.Literal(l.Addr().String())}
	wantResult(t, "the server", once(t, h, generous), "")
	h.Service = "cart"
	wantResult(t, "a service that is down", once(t, h, generous), "NOT_SERVING")
	h.Service = "nothing"
	wantResult(t, "a service that there is not", once(t, h, generous), "NotFound")
	h.Service, h.TLS = "", true
	wantUnreachable(t, h, "first record does not look like a TLS handshake")
	server.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	h.TLS = false
	wantUnreachable(t, h, "connection refused")
}

// wantUnreachable compares all that a gRPC check says of a server which it cannot
// reach, and has to wait for. It is given more time if it found nothing out.
func wantUnreachable(t *testing.T, h spec.Health, want string) {
	t.Helper()
	got := ""
	for wait := 300 * time.Millisecond; got != want && wait < generous; wait *= 4 {
		got = once(t, h, wait).text()
	}
	if got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

func TestGRPCFaultIsOneShortLine(t *testing.T) {
	late, cancel := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel()
	wrapped := `latest balancer error: connection error: desc = "transport: Error while dialing: dial tcp [::1]:80: connect: connection refused"`
	for _, test := range []struct {
		ctx  context.Context
		code codes.Code
		says string
		want string
	}{
		{late, codes.DeadlineExceeded, wrapped, "connection refused"},
		{late, codes.DeadlineExceeded, "latest balancer error: write tcp 127.0.0.1:1->127.0.0.1:2: write: connection reset by peer", "connection reset by peer"},
		{late, codes.DeadlineExceeded, "latest balancer error: none", "none"},
		{late, codes.DeadlineExceeded, "context deadline exceeded while waiting for connections to become ready", "no answer in time"},
		{t.Context(), codes.Unavailable, `connection error: desc = "error reading server preface: EOF"`, "EOF"},
		{t.Context(), codes.NotFound, "unknown service: cart", "NotFound: unknown service: cart"},
		{t.Context(), codes.Internal, "the \xff stack:\n\tmain.go", "Internal: the \uFFFD stack: main.go"},
		{t.Context(), codes.Internal, strings.Repeat("é", 5000), "Internal: " + strings.Repeat("é", maxShown-11) + "…"},
	} {
		if got := fault(test.ctx, status.New(test.code, test.says)).Error(); got != test.want {
			t.Errorf("of %.80q it says %.80q, want %.80q", test.says, got, test.want)
		}
	}
}

func shell(script string) spec.Health {
	return spec.Health{Command: []spec.Template{"/bin/sh", "-c", spec.Literal(script)}}
}

func TestExecCheck(t *testing.T) {
	wantResult(t, "success", once(t, shell("exit 0"), generous), "")
	wantResult(t, "environment and directory", once(t, shell(`test "$WHO $(pwd)" = "me /"`), generous), "")
	wantResult(t, "failure", once(t, shell("echo bad; echo worse >&2; exit 3"), generous), "exit status 3\nbad\nworse")
	wantResult(t, "signal", once(t, shell("kill -9 $$"), generous), "killed")
	wantResult(t, "no such program", once(t, spec.Health{Command: []spec.Template{"/nowhere/x"}}, generous), "no such file")
	r := once(t, shell("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"), generous)
	if len(r.Output) != MaxOutput || !strings.HasSuffix(r.Output, "line 2999\n") {
		t.Errorf("%d bytes of output are kept, ending in %q", len(r.Output), r.Output[max(0, len(r.Output)-20):])
	}
}

// Whatever a check has started ends with it: at its timeout and at its end.
func TestExecCheckLeavesNothingBehind(t *testing.T) {
	for name, test := range map[string]struct {
		then    string
		timeout time.Duration
		fault   string
	}{
		"timeout": {"wait", 300 * time.Millisecond, "no answer in time"},
		"success": {"exit 0", generous, ""},
	} {
		r := once(t, shell("sleep 1000 & echo $!; "+test.then), test.timeout)
		wantResult(t, name, r, test.fault)
		pid, err := strconv.Atoi(strings.TrimSpace(r.Output))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for end := time.Now().Add(generous); running(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: the check's child still runs", name)
			}
		}
	}
}

// running reports whether a process is there and no zombie.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestLogCheckPassesFromTheFirstMatchOn(t *testing.T) {
	var found bool
	var fault error
	asked := 0
	find := func(_ context.Context, _ spec.InstanceID, since time.Time, pattern string) (string, bool, error) {
		if asked++; !since.Equal(began) || pattern != "up" {
			t.Errorf("asked for %q since %s", pattern, since)
		}
		return "it is up", found, fault
	}
	r := New(Config{Host: host{find: find}})
	h := spec.Health{Log: "up"}
	c, err := r.cfg.make(&Target{Since: began}, &h, NewTally(""), nil)
	if err != nil {
		t.Fatal(err)
	}
	wantResult(t, "nothing", c.check(t.Context()), "no line of output has matched yet")
	fault = errors.New("the disk is away")
	wantResult(t, "fault", c.check(t.Context()), "the disk is away")
	found, fault = true, nil
	wantResult(t, "found", c.check(t.Context()), "")
	found = false
	wantResult(t, "found before", c.check(t.Context()), "")
	if asked != 3 {
		t.Errorf("the output was searched %d times", asked)
	}
}

func TestFaultOfATargetFailsItsChecks(t *testing.T) {
	r := New(Config{})
	h := spec.Health{TCP: "x:1"}
	if _, err := r.cfg.make(&Target{Fault: "there is no port http"}, &h, Tally{}, nil); err == nil || err.Error() != "there is no port http" {
		t.Errorf("got %v", err)
	}
}
