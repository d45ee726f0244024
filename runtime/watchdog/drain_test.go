package watchdog

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// piped is a listener whose connections are pipes.
type piped chan net.Conn

func (p piped) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p piped) Close() error   { close(p); return nil }
func (p piped) Addr() net.Addr { return &net.UnixAddr{} }

// connect returns the client's end of a new connection.
func (p piped) connect() net.Conn {
	ours, theirs := net.Pipe()
	p <- theirs
	return ours
}

// Who is connected and asks nothing does not make the end wait; an answer that
// is still to come does, and gets out.
func TestTheEndWaitsForAnswersAndForNobodyElse(t *testing.T) {
	for name, takes := range map[string]time.Duration{"nobody asks": 0, "an answer takes its time": drainLimit / 2} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a activeConns
				listener := make(piped)
				server := &http.Server{ConnState: a.connState, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					time.Sleep(takes)
					io.WriteString(w, "done")
				})}
				go server.Serve(listener)
				defer listener.connect().Close() // it says nothing
				answered := make(chan error, 1)
				if takes == 0 {
					answered <- nil
				} else {
					c := listener.connect()
					defer c.Close()
					io.WriteString(c, "GET / HTTP/1.1\r\nHost: watchdog\r\n\r\n")
					go func() {
						_, err := http.ReadResponse(bufio.NewReader(c), nil)
						answered <- err
					}()
				}
				synctest.Wait()
				begun := time.Now()
				a.drain(server)
				if took := time.Since(begun); took != takes {
					t.Errorf("the end took %s, want %s", took, takes)
				}
				if err := <-answered; err != nil {
					t.Errorf("the answer did not get out: %v", err)
				}
			})
		})
	}
}
