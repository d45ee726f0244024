package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"sync"
	"time"
)

// flushDelay bounds how long a line waits for others to go with it.
const flushDelay = 10 * time.Millisecond

// lineWriter writes values as lines. Lines that come fast share a write; none
// waits longer than flushDelay.
type lineWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	encoder *json.Encoder
	timer   *time.Timer

	mu      sync.Mutex // guards what is below, and writing to w
	buffer  *bufio.Writer
	begun   bool // the header is out
	pending bool // a flush is due
	err     error
}

// newLineWriter begins no answer yet, so that an error can still be one; but a
// stream that stays silent begins after flushDelay, for the caller to know
// that it is followed.
func newLineWriter(w http.ResponseWriter) *lineWriter {
	l := &lineWriter{w: w, control: http.NewResponseController(w), buffer: bufio.NewWriterSize(w, 64<<10)}
	l.encoder = json.NewEncoder(l.buffer)
	l.encoder.SetEscapeHTML(false)
	l.mu.Lock() // a flush that is due at once must not be ahead of its timer
	defer l.mu.Unlock()
	l.pending = true
	l.timer = time.AfterFunc(10*flushDelay, l.flush)
	return l
}

func (l *lineWriter) write(value any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.begin()
	if l.err = l.encoder.Encode(value); l.err != nil {
		return l.err
	}
	if !l.pending {
		l.pending = true
		l.timer.Reset(flushDelay)
	}
	return nil
}

// begin sends the header. mu is held.
func (l *lineWriter) begin() {
	if l.begun {
		return
	}
	l.begun = true
	l.w.Header().Set("Content-Type", "application/x-ndjson")
	l.w.Header().Set("Trailer", errorTrailer)
	l.w.WriteHeader(http.StatusOK)
	l.timer.Reset(flushDelay)
	l.deadline()
}

// deadline gives the reader time to take what comes next. mu is held.
func (l *lineWriter) deadline() {
	_ = l.control.SetWriteDeadline(time.Now().Add(stallTimeout))
}

func (l *lineWriter) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.pending {
		return
	}
	l.pending = false
	l.begin()
	l.flushNow()
}

// flushNow sends what is buffered. mu is held.
func (l *lineWriter) flushNow() {
	if l.err != nil {
		return
	}
	l.deadline()
	if l.err = l.buffer.Flush(); l.err == nil {
		l.err = l.control.Flush()
	}
}

// close sends the rest and reports whether an answer was begun. Afterwards
// nothing touches the response any more.
func (l *lineWriter) close() bool {
	l.timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pending = false
	if l.begun {
		l.flushNow()
	}
	return l.begun
}
