package local

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	iradix "github.com/hashicorp/go-immutable-radix/v2"

	"github.com/synergymesh/meshrun/runtime/state"
)

// maxFaults bounds how many faults of a log are described one by one.
const maxFaults = 5

// replayed is what the records of a log say.
type replayed struct {
	bodies map[recordID][]byte
	format uint32 // 0 if the header is damaged
	last   commit // the last whole one
	size   int    // where it ends
	// cut is how many bytes follow it: a commit that was never acknowledged,
	// because the machine or the process ended while it was written.
	cut int
	// faults describe damage before that, the first of them; more counts the rest.
	faults []string
	more   int
	// revived: a deletion may be among what is damaged.
	revived bool
}

// replay reads a log. Of a damaged one it returns all that is whole: each
// record that is damaged loses itself alone, and the key keeps what the record
// before it said.
func replay(log []byte) replayed {
	r := &replayed{bodies: map[recordID][]byte{}}
	format, ok := decodeHeader(log)
	if r.format = format; r.format > Format {
		return *r
	}
	at := headerSize
	var pending pendingCommit
	if !ok {
		at = 0
		pending.fault("its header is damaged")
	}
	r.size = min(at, len(log))
	for at < len(log) {
		rec, err := readRecord(log[at:])
		switch {
		case rec.kind == kindCommit && rec.size > 0:
			r.apply(&pending, rec, at, err)
			pending = pendingCommit{}
		case err == nil:
			pending.records = append(pending.records, rec)
		case rec.size > 0:
			pending.fault("the value of %q at byte %d is damaged", rec.key, at)
			pending.revives = pending.revives || rec.deleted
		default:
			rec.size = nextRecord(log, at+1) - at
			pending.fault("%d bytes at byte %d are no record", rec.size, at)
			pending.revives = true
		}
		at += rec.size
	}
	r.cut = len(log) - r.size
	if r.last.index == 0 && len(pending.faults) > 0 {
		r.addFaults(&pending) // not one commit is whole: that is no torn end
	}
	r.checkCounts()
	return *r
}

// nextRecord returns where the next record with a whole head begins, or the
// end of the log.
func nextRecord(log []byte, at int) int {
	for ; at < len(log); at++ {
		next := bytes.Index(log[at:], []byte(recordMagic))
		if next < 0 {
			break
		}
		at += next
		if rec, err := readRecord(log[at:]); err == nil || rec.size > 0 {
			return at
		}
	}
	return len(log)
}

// pendingCommit is what was read since the last end of a commit.
type pendingCommit struct {
	records []record
	faults  []string
	revives bool
}

func (p *pendingCommit) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

// apply takes a commit over, with whatever of it is whole: it was acknowledged.
// Where its own record is damaged, how much belonged to it is not known.
func (r *replayed) apply(p *pendingCommit, rec record, at int, damaged error) {
	end, err := decodeCommit(rec.body)
	if err = errors.Join(damaged, err); err != nil {
		p.fault("the end of a commit at byte %d is damaged", at)
	} else if missing := int(end.records) - len(p.records); missing > 0 && len(p.faults) == 0 {
		p.fault("%d of the %d records of commit %d are missing", missing, end.records, end.index)
		p.revives = true
	}
	for _, rec := range p.records {
		if rec.deleted {
			delete(r.bodies, rec.recordID)
		} else {
			r.bodies[rec.recordID] = rec.body
		}
	}
	r.addFaults(p)
	r.size = at + rec.size
	if err != nil {
		end = commit{index: r.last.index}
		end.entries, end.sessions = r.count()
	}
	r.last = end
}

func (r *replayed) addFaults(p *pendingCommit) {
	for _, text := range p.faults {
		if len(r.faults) < maxFaults {
			r.faults = append(r.faults, text)
		} else {
			r.more++
		}
	}
	r.revived = r.revived || p.revives
}

// checkCounts compares what was found with what the last commit counted. A
// session without TTL would never end, so one of too many is not kept.
func (r *replayed) checkCounts() {
	entries, sessions := r.count()
	if entries != r.last.entries || sessions != r.last.sessions {
		r.addFaults(&pendingCommit{faults: []string{fmt.Sprintf("it holds %d of %d keys and %d of %d sessions",
			entries, r.last.entries, sessions, r.last.sessions)}})
	}
	r.revived = r.revived || entries > r.last.entries
	if sessions <= r.last.sessions {
		return
	}
	for id, body := range r.bodies {
		if s, err := decodeSession(id.key, body); id.kind == kindSession && err == nil && s.TTL == 0 {
			delete(r.bodies, id)
		}
	}
}

func (r *replayed) count() (entries, sessions uint64) {
	for id := range r.bodies {
		switch id.kind {
		case kindEntry:
			entries++
		case kindSession:
			sessions++
		}
	}
	return entries, sessions
}

// damage says what is damaged; "" if nothing is.
func (r *replayed) damage() string {
	text := strings.Join(r.faults, "; ")
	if r.more > 0 {
		text += fmt.Sprintf("; and %d more", r.more)
	}
	return text
}

// memory returns the memory that the records make.
func (r *replayed) memory(now time.Time) (*memory, error) {
	l := newLoader(r.last.index, now)
	for id, body := range r.bodies {
		if err := l.add(id, body); err != nil {
			return nil, fmt.Errorf("load %q: %w", id.key, err)
		}
	}
	return l.done(), nil
}

// loader makes a memory of the bodies of records.
type loader struct {
	now      time.Time
	index    uint64
	entries  *iradix.Txn[*state.Entry]
	sessions *iradix.Txn[state.Session]
	delays   *iradix.Txn[time.Time]
}

func newLoader(index uint64, now time.Time) *loader {
	m := newMemory()
	return &loader{
		now: now, index: max(m.index, index),
		entries: m.entries.Txn(), sessions: m.sessions.Txn(), delays: m.delays.Txn(),
	}
}

// add adds what a record says of a key.
func (l *loader) add(id recordID, body []byte) error {
	key := []byte(id.key)
	switch id.kind {
	case kindEntry:
		e, err := decodeEntry(id.key, body)
		if err != nil {
			return err
		}
		l.index = max(l.index, e.ModifyIndex)
		l.entries.Insert(key, e)
	case kindSession:
		s, err := decodeSession(id.key, body)
		if err != nil {
			return err
		}
		l.index = max(l.index, s.CreateIndex)
		l.sessions.Insert(key, s)
	case kindDelay:
		until, err := decodeDelay(body)
		if err != nil {
			return err
		}
		// A clock that was set back must not make the delay longer.
		if latest := l.now.Add(state.MaxLockDelay); until.After(latest) {
			until = latest
		}
		l.delays.Insert(key, until)
	default:
		return fmt.Errorf("unknown kind %q of record: %w", byte(id.kind), errBadRecord)
	}
	return nil
}

// done returns the memory. Deletions before it are not known.
func (l *loader) done() *memory {
	return &memory{
		index: l.index, entries: l.entries.Commit(), sessions: l.sessions.Commit(), delays: l.delays.Commit(),
		forgotten: l.index,
	}
}
