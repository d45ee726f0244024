package watchdog

import (
	"io"
	"sync"
)

// mirrorQueue bounds what waits to be shown: a terminal that is stopped must
// not stop the output of anything.
const mirrorQueue = 64

// mirror shows the agent's output, besides keeping it.
type mirror struct {
	chunks chan []byte
	wg     sync.WaitGroup
}

func newMirror(w io.Writer) *mirror {
	m := &mirror{chunks: make(chan []byte, mirrorQueue)}
	m.wg.Go(func() {
		for b := range m.chunks {
			w.Write(b)
		}
	})
	return m
}

// write shows a chunk; if too much waits already, it is only kept, not shown.
func (m *mirror) write(b []byte) {
	select {
	case m.chunks <- append([]byte(nil), b...):
	default:
	}
}

// close shows what waits, and ends.
func (m *mirror) close() {
	close(m.chunks)
	m.wg.Wait()
}
