package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Bounds of the server.
const (
	// MaxBody is the largest request in bytes: a plan of thousands of processes.
	MaxBody = 64 << 20
	// MaxSocketPath is what unix(7) allows for the path of a socket.
	MaxSocketPath = 107

	maxRequests   = 512 // at a time; blocked ones and streams included
	maxHeader     = 16 << 10
	headerTimeout = 5 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	closeTimeout  = 5 * time.Second
	// stallTimeout ends a stream whose reader has stopped reading; it is long
	// because people stop to read.
	stallTimeout = 10 * time.Minute
	// blockTimeout ends a blocking query that nothing has woken; the client
	// asks again.
	blockTimeout = 5 * time.Minute
)

// Config is what a server needs.
type Config struct {
	Backend Backend
	Logger  hclog.Logger
	// SocketPath is where the server listens.
	SocketPath string
}

// Server serves a Backend on a unix socket and, if it is told to, to other
// agents on TCP.
type Server struct {
	cfg      Config
	logger   hclog.Logger
	http     *http.Server
	slots    chan struct{}
	ctx      context.Context // of all requests; done when the server closes
	cancel   context.CancelCauseFunc
	listener *net.UnixListener
	network  net.Listener // for other agents; nil without
	inode    os.FileInfo  // of the socket, to remove no other one
	closing  sync.Once
}

// errClosing ends the requests of a server that closes.
var errClosing = fmt.Errorf("the agent is shutting down: %w", ErrUnavailable)

// NewServer returns a server that does not listen yet.
func NewServer(cfg Config) *Server {
	s := &Server{cfg: cfg, logger: cfg.Logger.Named("api"), slots: make(chan struct{}, maxRequests)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.http = &http.Server{
		Handler:           s.admit(s.handler()),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return s.ctx },
		ConnContext:       withPeer,
		ErrorLog:          s.logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return s
}

// Open listens on the socket, which only its owner may open (0600). The socket
// of a dead agent is replaced; one that answers is left alone, and Open
// returns an error.
func (s *Server) Open() error {
	path := s.cfg.SocketPath
	fresh := path + ".new"
	if len(fresh) > MaxSocketPath {
		return fmt.Errorf("listen on %s: the path has %d bytes and a socket's may have %d: choose a shorter -data-dir",
			path, len(path), MaxSocketPath-len(".new"))
	}
	if err := checkReplaceable(path); err != nil {
		return err
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	// Under its final name the socket has the right mode from the first moment.
	if err = os.Chmod(fresh, 0o600); err == nil {
		err = os.Rename(fresh, path)
	}
	if err == nil {
		s.inode, err = os.Lstat(path)
	}
	if err != nil {
		l.Close()
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	s.listener = l
	return nil
}

// checkReplaceable returns an error if something at path must be left alone.
func checkReplaceable(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("look at old socket: %w", err)
	case info.Mode()&os.ModeSocket == 0:
		return fmt.Errorf("listen on %s: there is a file that is no socket: move it away", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		conn.Close()
		return fmt.Errorf("listen on %s: another agent answers there: use it, or another -data-dir", path)
	}
	return nil
}

// Listen lets other agents in, too: on a host:port, with mutual TLS. It may be
// called once, between Open and Serve. Without credentials it is ErrInvalid.
func (s *Server) Listen(ctx context.Context, addr string, cred Credentials) error {
	l, err := listenTCP(ctx, addr, cred, s.logger)
	if err != nil {
		return err
	}
	s.network = l
	return nil
}

// Address returns the host:port at which other agents are let in; "" if none are.
func (s *Server) Address() string {
	if s.network == nil {
		return ""
	}
	return s.network.Addr().String()
}

// Serve answers requests until Close. Open must have succeeded.
func (s *Server) Serve() error {
	listeners := []net.Listener{s.listener}
	if s.network != nil {
		listeners = append(listeners, s.network)
	}
	ended := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { ended <- s.http.Serve(l) }()
	}
	var failure error
	for range listeners {
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			failure = errors.Join(failure, err)
			_ = s.http.Close() // ends the others, whose error is told
		}
	}
	if failure != nil {
		return fmt.Errorf("serve API: %w", failure)
	}
	return nil
}

// Close stops listening, ends streams and blocked queries, lets short requests
// finish, waits for all of them, and removes the socket. It may be called more
// than once.
func (s *Server) Close() error {
	var err error
	s.closing.Do(func() {
		if s.listener != nil {
			if now, statErr := os.Lstat(s.cfg.SocketPath); statErr == nil && os.SameFile(now, s.inode) {
				err = os.Remove(s.cfg.SocketPath)
			}
		}
		s.cancel(errClosing)
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if shutErr := s.http.Shutdown(ctx); shutErr != nil {
			err = errors.Join(err, shutErr, s.http.Close())
		}
		if s.listener != nil {
			_ = s.listener.Close() // if Serve never ran, nobody else does it
		}
		if s.network != nil {
			_ = s.network.Close()
		}
	})
	if err != nil {
		return fmt.Errorf("close API: %w", err)
	}
	return nil
}

// admit lets in who may use the agent, as many at a time as it can bear.
func (s *Server) admit(next http.Handler) http.Handler {
	own := ownUID()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := peerOfRequest(r)
		if err := p.check(own); err != nil {
			s.logger.Warn("refused a request", "uid", p.uid, "error", err)
			s.fail(w, r, err)
			return
		}
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			s.fail(w, r, &Error{
				Message: fmt.Sprintf("the agent is busy with %d requests", maxRequests),
				Code:    "unavailable", Hint: "try again in a moment",
			})
			return
		}
		call := callOf(r, &p)
		s.logger.Trace("request", "method", r.Method, "path", r.URL.Path, "who", call.Who)
		next.ServeHTTP(w, r.WithContext(WithCall(r.Context(), call)))
	})
}

// fail answers with an error. An error of the agent's own is logged.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		if s.ctx.Err() == nil {
			return // the caller has gone
		}
		err = errClosing
	}
	wire, status := wireError(err)
	if wire.Code == codeInternal {
		s.logger.Error("request", "method", r.Method, "path", r.URL.Path, "error", err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(wire) // a caller that has gone misses nothing
}
