package watchdog

import (
	"io"
	"time"
)

// mirrorQueue bounds what waits to be shown: a terminal that is stopped must
// not stop the output of anything.
const mirrorQueue = 64

// mirrorGrace is how long the end waits for what is not shown yet.
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

// write shows a chunk; if too much waits already, it is only kept, not shown.
func (m *mirror) write(b []byte) {
	select {
	case m.chunks <- append([]byte(nil), b...):
	default:
	}
}

// close shows what waits, and ends; a terminal that takes nothing is waited
// for only a moment.
func (m *mirror) close() {
	close(m.chunks)
	select {
	case <-m.done:
	case <-time.After(mirrorGrace):
	}
}
