// Package consultest starts real Consul servers for tests. It is no part of
// meshrun: only tests and benchmarks import it.
package consultest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// BinaryEnv names the Consul to use in place of the one that make builds.
const BinaryEnv = "MESHRUN_TEST_CONSUL"

const (
	// startTimeout is within what a server must be ready; alone it takes half
	// a second in memory and three on disk.
	startTimeout = 60 * time.Second
	pollEvery    = 20 * time.Millisecond
	// attempts to find ports that nobody takes before Consul does.
	attempts = 5
)

// Binary returns the Consul to test with: what MESHRUN_TEST_CONSUL names, else
// bin/consul in the repository, which is the version that meshrun is made for,
// else the one in PATH.
func Binary() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		return path, nil
	}
	_, here, _, _ := runtime.Caller(0)
	for dir := filepath.Dir(here); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
			continue
		}
		if path := filepath.Join(dir, "bin", "consul"); executable(path) {
			return path, nil
		}
		break
	}
	path, err := exec.LookPath("consul")
	if err != nil {
		return "", fmt.Errorf("there is no Consul to test with: run make consul, or set %s to one", BinaryEnv)
	}
	return path, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// Options of a server. The zero value is one in memory without ACLs.
type Options struct {
	// Dir holds the server's data, so that it survives Kill and Start; empty
	// keeps all in memory.
	Dir string
	// Token turns ACLs on, with everything denied by default, and is the token
	// that may do all: a UUID.
	Token string
	// Config is more configuration, in HCL.
	Config string
}

// Server is a Consul server of its own cluster.
type Server struct {
	opts   Options
	binary string
	ports  ports

	output lockedBuffer
	pid    int
	exited chan struct{} // closed when the process is reaped
}

type ports struct{ http, rpc, serf int }

// Start starts a server and waits until it can serve sessions.
func Start(ctx context.Context, opts Options) (*Server, error) {
	binary, err := Binary()
	if err != nil {
		return nil, err
	}
	for range attempts {
		s := &Server{opts: opts, binary: binary}
		if s.ports, err = freePorts(); err != nil {
			return nil, err
		}
		if err = s.Start(ctx); err == nil {
			return s, nil
		}
		s.Kill()
		if !strings.Contains(s.output.String(), "address already in use") {
			break
		}
	}
	return nil, err
}

// Address is host:port of the server's HTTP API.
func (s *Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.ports.http) }

// Output is what the server has printed.
func (s *Server) Output() string { return s.output.String() }

// Pid is the server's process.
func (s *Server) Pid() int { return s.pid }

// Start starts the server again after Kill, on the same ports and directory,
// and waits until it can serve sessions.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	cmd := exec.Command(s.binary, s.args()...)
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	s.exited = make(chan struct{})
	go run(cmd, started, s.exited)
	if err := <-started; err != nil {
		return fmt.Errorf("start Consul: %w", err)
	}
	s.pid = cmd.Process.Pid
	for !s.ready(ctx) {
		select {
		case <-time.After(pollEvery):
		case <-s.exited:
			return fmt.Errorf("start Consul: it ended; its output:\n%s", s.Output())
		case <-ctx.Done():
			return fmt.Errorf("start Consul: it is not ready: %w; its output:\n%s", ctx.Err(), s.Output())
		}
	}
	return nil
}

// run owns the process. The kernel kills it when the thread that started it
// ends, so that no test leaves a server behind; the thread must stay till then.
func run(cmd *exec.Cmd, started chan<- error, exited chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(exited)
	err := cmd.Start()
	started <- err
	if err == nil {
		_ = cmd.Wait() // it is killed: its exit tells nothing
	}
}

// Kill ends the server at once, as a crash would, and waits for its end.
func (s *Server) Kill() {
	if s.pid != 0 {
		_ = syscall.Kill(s.pid, syscall.SIGKILL) // it may have ended by itself
		<-s.exited
		s.pid = 0
	}
}

func (s *Server) args() []string {
	args := []string{
		"agent", "-node=test", "-bind=127.0.0.1", "-client=127.0.0.1", "-log-level=warn",
		"-http-port=" + strconv.Itoa(s.ports.http), "-server-port=" + strconv.Itoa(s.ports.rpc),
		"-serf-lan-port=" + strconv.Itoa(s.ports.serf), "-serf-wan-port=-1",
		"-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1",
		"-hcl=disable_update_check = true", "-hcl=connect { enabled = false }", "-hcl=performance { raft_multiplier = 1 }",
	}
	if s.opts.Dir == "" {
		args = append(args, "-dev")
	} else {
		args = append(args, "-server", "-bootstrap-expect=1", "-data-dir="+s.opts.Dir)
	}
	if s.opts.Token != "" {
		args = append(args, `-hcl=acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+s.opts.Token+`", agent = "`+s.opts.Token+`" } }`)
	}
	if s.opts.Config != "" {
		args = append(args, "-hcl="+s.opts.Config)
	}
	return args
}

// ready reports whether there is a leader that knows this node's serfHealth,
// without which there are no sessions.
func (s *Server) ready(ctx context.Context) bool {
	var checks []struct{ CheckID, Status string }
	if err := s.Call(ctx, http.MethodGet, "/v1/health/node/test", nil, &checks); err != nil {
		return false
	}
	for _, c := range checks {
		if c.CheckID == "serfHealth" && c.Status == "passing" {
			return true
		}
	}
	return false
}

// Call asks the server's HTTP API with the token that may do all. in is sent
// as JSON, or as it is if it is []byte; out is filled from JSON, or is a
// *[]byte for the answer as it is. Both may be nil.
func (s *Server) Call(ctx context.Context, method, path string, in, out any) error {
	body, ok := in.([]byte)
	if !ok && in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("encode request %s: %w", path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.Address()+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request %s: %w", path, err)
	}
	req.Header.Set("X-Consul-Token", s.opts.Token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask Consul: %w", err)
	}
	defer resp.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		return fmt.Errorf("read answer to %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask Consul for %s: %s: %s", path, resp.Status, answer.String())
	}
	switch out := out.(type) {
	case nil:
	case *[]byte:
		*out = answer.Bytes()
	default:
		if err := json.Unmarshal(answer.Bytes(), out); err != nil {
			return fmt.Errorf("decode answer to %s: %w", path, err)
		}
	}
	return nil
}

// freePorts returns ports that are free now, for TCP and UDP.
func freePorts() (ports, error) {
	var p ports
	var errs []error
	for _, port := range []*int{&p.http, &p.rpc, &p.serf} {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return p, fmt.Errorf("find a free port: %w", err)
		}
		*port = tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err != nil {
			errs = append(errs, err)
		} else {
			defer udp.Close()
		}
		defer tcp.Close() // not before all are found, so that they differ
	}
	return p, errors.Join(errs...)
}

// lockedBuffer is written by the process's goroutine and read by the test.
type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write appends.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns all that was written.
func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
