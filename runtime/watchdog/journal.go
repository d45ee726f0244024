package watchdog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/internal/loop"
	"github.com/synergymesh/meshrun/spec"
)

// The bounds of the journal.
const (
	defaultSegmentSize = 8 << 20
	defaultSegments    = 4

	// maxPending bounds the records that wait for space on the disk.
	maxPending = 4 << 20
	// maxUntold is the capacity for events that is kept between two flushes.
	maxUntold = 64
)

const segmentSuffix = ".jsonl"

// journal is the watchdog's append-only record of events: numbered records in
// segments. Each segment begins with the state of all instances, so that older
// ones may be removed. Only the loop uses it; readers use its files and the
// ring.
//
// Writes are not synced one by one. A killed process loses nothing that it has
// written, and a machine that loses power has lost its processes as well: the
// agent, whose store is synced, then declares again what is to run.
type journal struct {
	dir   string
	log   hclog.Logger
	ring  *ring
	table func() []entry // the present state, for a new segment

	segmentSize int64
	segments    int

	file      *os.File
	size      int64
	seq       uint64 // of the last record
	pending   []byte // whole lines that are not in the file yet
	untold    []spec.Event
	lost      bool         // records were dropped: only a new segment makes it whole
	writes    loop.Backoff // counts and logs failed writes
	rotations loop.Backoff // counts and logs failed rotations
	err       error        // of the last write
}

// append numbers a record and keeps it for the next flush.
func (j *journal) append(r record) {
	j.seq++
	r.Event.Seq = j.seq
	b, err := json.Marshal(r)
	if err != nil { // no type in a record can fail to marshal
		j.log.Error("cannot encode a journal record", "type", r.Event.Type, "error", err)
		return
	}
	j.untold = append(j.untold, r.Event)
	if len(j.pending)+len(b) > maxPending {
		j.pending, j.lost = nil, true
	}
	j.pending = append(append(j.pending, b...), '\n')
}

// flush writes the appended records with one write, and reports whether all of
// them are in the file. A full disk stops nothing: records wait, within a
// bound, and the next flush writes them. More says that more will follow at
// once.
func (j *journal) flush(more bool) bool {
	if len(j.pending) == 0 && !j.lost {
		j.ring.add(nil, more)
		return true
	}
	err := j.write()
	// Events are sent after they are written, so that no number is used twice;
	// if the disk is full, they are sent all the same.
	j.ring.add(j.untold, more)
	clear(j.untold)
	if j.untold = j.untold[:0]; cap(j.untold) > maxUntold {
		j.untold = nil
	}
	if j.err = err; err != nil {
		j.writes.Failed(j.log, "cannot write the journal; supervision continues and events are kept in memory: free disk space", err)
		return false
	}
	j.writes.Recovered(j.log, "the journal is written again")
	return true
}

func (j *journal) write() error {
	if j.file == nil || j.lost || j.size > j.segmentSize {
		// The new segment begins with the state that the pending records led to.
		err := j.rotate()
		if err != nil && (j.file == nil || j.lost) {
			return err
		}
		if err != nil {
			j.rotations.Failed(j.log, "cannot begin a new journal segment; continuing with the old one", err)
		}
	}
	if len(j.pending) == 0 {
		return nil
	}
	n, err := j.file.Write(j.pending)
	if err != nil {
		// A torn line would read as damage: remove it.
		if n > 0 {
			if terr := j.file.Truncate(j.size); terr != nil {
				j.lost = true
			}
		}
		return fmt.Errorf("write journal: %w", err)
	}
	j.size += int64(n)
	if cap(j.pending) > 256<<10 {
		j.pending = nil
	}
	j.pending = j.pending[:0]
	return nil
}

// rotate begins a new segment with the state of all instances, and removes the
// oldest segments. Pending records follow that state, although it includes
// them: to replay them again changes nothing.
func (j *journal) rotate() error {
	entries := j.table()
	from := j.seq + 1
	if !j.lost { // each pending line is a record
		from -= uint64(bytes.Count(j.pending, []byte{'\n'}))
	}
	b, err := encodeSegment(segmentHead{From: from, Entries: len(entries)}, entries)
	if err != nil {
		return err
	}
	path := filepath.Join(j.dir, fmt.Sprintf("%020d%s", from, segmentSuffix))
	f, err := replaceFile(path, b)
	if err != nil {
		return fmt.Errorf("write journal segment: %w", err)
	}
	j.close()
	j.file, j.size, j.lost = f, int64(len(b)), false
	j.rotations.Reset()
	// A table larger than a segment must not rotate at every write.
	j.segmentSize = max(j.segmentSize, 2*int64(len(b)))
	j.prune()
	return nil
}

func encodeSegment(head segmentHead, entries []entry) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	err := enc.Encode(map[string]segmentHead{"head": head})
	for i := 0; err == nil && i < len(entries); i++ {
		err = enc.Encode(map[string]*entry{"entry": &entries[i]})
	}
	if err != nil {
		return nil, fmt.Errorf("encode journal segment: %w", err)
	}
	return out.Bytes(), nil
}

// prune removes the segments beyond the bound, oldest first.
func (j *journal) prune() {
	names, err := segmentNames(j.dir)
	if err != nil {
		j.log.Warn("cannot list the journal", "error", err)
		return
	}
	for len(names) > j.segments {
		if err := os.Remove(filepath.Join(j.dir, names[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			j.log.Warn("cannot remove an old journal segment", "error", err)
			return
		}
		names = names[1:]
	}
}

// close closes the file. Records that were not flushed are lost.
func (j *journal) close() {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
}

// segmentNames lists the segments, oldest first.
func segmentNames(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list journal: %w", err)
	}
	var names []string
	for _, f := range files {
		if _, ok := segmentStart(f.Name()); ok {
			names = append(names, f.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// segmentStart returns the number of the first event of a segment.
func segmentStart(name string) (uint64, bool) {
	stem, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(stem, 10, 64)
	return n, err == nil
}

// resume continues an undamaged segment.
func (j *journal) resume(name string, size int64) error {
	f, err := os.OpenFile(filepath.Join(j.dir, name), os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	j.file, j.size = f, size
	return nil
}
