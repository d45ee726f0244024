package watchdog

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// drainLimit bounds how long responses may take at the end.
const drainLimit = time.Second

// activeConns tracks the connections with a request that is not answered yet.
// http.Server.Shutdown polls for that seldom, and counts a new connection
// without a request as busy.
type activeConns struct {
	mu    sync.Mutex // guards what is below
	conns map[net.Conn]bool
	quiet chan struct{} // closed once draining and nothing is to be answered
	over  bool          // quiet is closed
}

// connState is the server's ConnState.
func (a *activeConns) connState(c net.Conn, state http.ConnState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if state == http.StateActive {
		if a.conns == nil {
			a.conns = map[net.Conn]bool{}
		}
		a.conns[c] = true
		return
	}
	delete(a.conns, c)
	a.checkQuiet()
}

// checkQuiet closes quiet if draining and no request is left to be answered.
// a.mu is held.
func (a *activeConns) checkQuiet() {
	if a.quiet != nil && !a.over && len(a.conns) == 0 {
		a.over = true
		close(a.quiet)
	}
}

// drain stops listening, waits until requests are answered, and closes all
// connections.
func (a *activeConns) drain(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	a.mu.Lock()
	if a.quiet == nil {
		a.quiet = make(chan struct{})
	}
	a.checkQuiet()
	quiet := a.quiet
	a.mu.Unlock()
	down := make(chan struct{})
	go func() {
		defer close(down)
		server.Shutdown(ctx) // Close below closes the rest
	}()
	select {
	case <-quiet:
	case <-down:
	}
	server.Close()
	cancel()
	<-down
}
