package watchdog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

const (
	// streamBatch is how many events are written to a client at once.
	streamBatch = 256
	// streamPause is the time between two writes while events keep coming: a
	// single event is sent at once, and a thousand starts do not wake a client a
	// thousand times.
	streamPause = 20 * time.Millisecond
	// streamStall is how long a client may accept nothing before its connection is closed.
	streamStall = 30 * time.Second
)

// events handles GET /v1/events?after=N[&follow=1]: one event a line. If the
// events after N are no longer kept, or N was never used, the first line is an
// event of type watchdog.gap, after which the client must read the table again.
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	after := uint64(0)
	if text := r.URL.Query().Get("after"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			reply(w, nil, refuse("after=%q is not the number of an event", text))
			return
		}
		after = n
	}
	follow := r.URL.Query().Get("follow")
	w.Header().Set("Content-Type", "application/x-ndjson")
	f := eventStream{ctx: r.Context(), w: w, control: http.NewResponseController(w), ring: s.ring, dir: s.dir, after: after}
	if err := f.run(follow == "1" || follow == "true", s.super.done); err != nil {
		s.log.Debug("an event stream ended", "error", err)
	}
}

// eventStream writes events to one client: from the ring if that goes back far
// enough, else from the journal's files. It never holds up the loop.
type eventStream struct {
	ctx     context.Context
	w       io.Writer
	control *http.ResponseController
	ring    *ring
	dir     string
	after   uint64
	wrote   time.Time // the last write
}

func (f *eventStream) run(follow bool, done <-chan struct{}) error {
	for {
		events, ok, more := f.ring.after(f.after, streamBatch)
		if !ok {
			if err := f.fromFiles(); err != nil {
				return err
			}
			continue
		}
		if err := f.write(events); err != nil {
			return err
		}
		if len(events) > 0 {
			continue
		}
		if !follow {
			return nil
		}
		select {
		case <-f.ctx.Done():
			return context.Cause(f.ctx)
		case <-more:
			f.pause(done)
		case <-done:
			follow = false // the last events, and then the end
		}
	}
}

// pause waits until streamPause after the last write, or for an end.
func (f *eventStream) pause(done <-chan struct{}) {
	wait := streamPause - time.Since(f.wrote)
	if wait <= 0 {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.ctx.Done():
	case <-done:
	}
}

// write sends events at once, within a deadline.
func (f *eventStream) write(events []spec.Event) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	for i := range events {
		if err := enc.Encode(&events[i]); err != nil {
			return fmt.Errorf("encode event: %w", err)
		}
		f.after = events[i].Seq
	}
	if err := f.control.SetWriteDeadline(time.Now().Add(streamStall)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := f.w.Write(buf.Bytes()); err != nil {
		return fmt.Errorf("write events: %w", err)
	}
	f.wrote = time.Now()
	return f.control.Flush()
}

// fromFiles sends the events after f.after that the files have. It reports
// missing ones as a gap, so that it always makes progress.
func (f *eventStream) fromFiles() error {
	first, last := f.ring.bounds()
	if f.after > last {
		at := f.after
		f.after = last
		return f.gap(last, fmt.Sprintf("event %d is not in this journal, which was started anew: read the table", at))
	}
	names, err := segmentNames(f.dir)
	if err != nil {
		return err
	}
	for i, name := range names {
		if i+1 < len(names) {
			if next, _ := segmentStart(names[i+1]); next <= f.after+1 {
				continue
			}
		}
		if err := f.file(filepath.Join(f.dir, name)); err != nil {
			return err
		}
	}
	if first > f.after+1 { // the files end before the ring begins
		return f.gap(first-1, f.missing(first-1))
	}
	return nil
}

// file sends the events of one segment that come after f.after.
func (f *eventStream) file(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil // just removed
	}
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	defer file.Close()
	in := bufio.NewReaderSize(file, 64<<10)
	var batch []spec.Event
	for {
		b, err := in.ReadBytes('\n')
		if err != nil {
			break // the end, or half a line that is being written
		}
		var l struct {
			Event spec.Event `json:"event"`
		}
		if !bytes.HasPrefix(b, []byte(`{"event"`)) || json.Unmarshal(b, &l) != nil || l.Event.Seq <= f.after {
			continue
		}
		if expected := f.after + uint64(len(batch)) + 1; l.Event.Seq > expected {
			if err := f.write(batch); err != nil {
				return err
			}
			if err := f.gap(l.Event.Seq-1, f.missing(l.Event.Seq-1)); err != nil {
				return err
			}
			batch = batch[:0]
		}
		if batch = append(batch, l.Event); len(batch) == streamBatch {
			if err := f.write(batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	return f.write(batch)
}

func (f *eventStream) missing(to uint64) string {
	return fmt.Sprintf("events %d to %d are no longer kept: read the table", f.after+1, to)
}

// gap reports that events up to seq are not available.
func (f *eventStream) gap(seq uint64, message string) error {
	return f.write([]spec.Event{{Seq: seq, Time: time.Now().UTC(), Type: spec.EventJournalGap,
		Severity: spec.Warning, Who: "watchdog", Message: message}})
}
