package watchdog

import (
	"io"
	"time"
)

// mirrorQueue bounds the output that waits to be shown: a suspended terminal
// must not stop any instance's output.
const mirrorQueue = 64

// mirrorGrace is how long close waits for output that is not shown yet.
const mirrorGrace = time.Second

// mirror shows the agent's output, besides keeping it.
type mirror struct {
	chunks chan []byte
	done   chan struct{} // closed when all is shown
}

func newMirror(w io.Writer) *mirror {
	m := &mirror{chunks: make(chan []byte, mirrorQueue), done: make(chan struct{})}
	go func() {
		defer close(m.done)
		for b := range m.chunks {
			w.Write(b)
		}
	}()
	return m
}

// write shows a chunk, unless too much waits already.
func (m *mirror) write(b []byte) {
	select {
	case m.chunks <- append([]byte(nil), b...):
	default:
	}
}

// close shows what waits, and ends; it does not wait long for a terminal that
// accepts nothing.
func (m *mirror) close() {
	close(m.chunks)
	select {
	case <-m.done:
	case <-time.After(mirrorGrace):
	}
}
