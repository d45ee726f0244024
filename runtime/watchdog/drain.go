package watchdog

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// drainLimit bounds how long answers may take to get out at the end.
const drainLimit = time.Second

// answering knows which connections have a request that is not answered yet.
// http.Server.Shutdown looks at that seldom, and takes a connection on which
// nothing was asked for a busy one.
type answering struct {
	mu    sync.Mutex // guards what is below
	conns map[net.Conn]bool
	quiet chan struct{} // closed once draining and nothing is to be answered
	over  bool          // quiet is closed
}

// note is the server's ConnState.
func (a *answering) note(c net.Conn, state http.ConnState) {
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
	a.settle()
}

// settle tells who waits; mu is held.
func (a *answering) settle() {
	if a.quiet != nil && !a.over && len(a.conns) == 0 {
		a.over = true
		close(a.quiet)
	}
}

// drain stops listening, lets answers get out, and closes all connections.
func (a *answering) drain(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), drainLimit)
	defer cancel()
	a.mu.Lock()
	if a.quiet == nil {
		a.quiet = make(chan struct{})
	}
	a.settle()
	quiet := a.quiet
	a.mu.Unlock()
	down := make(chan struct{})
	go func() {
		defer close(down)
		server.Shutdown(ctx) // what is left after it is closed below
	}()
	select {
	case <-quiet:
	case <-down:
	}
	server.Close()
	cancel()
	<-down
}
