package watchdog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// replayed is the state that a journal leads to.
type replayed struct {
	entries map[spec.InstanceID]*entry
	seq     uint64 // of the last record; damaged lines at the end are counted
	// damage describes what could not be read.
	damage []string
	// newest is the last segment, and its size up to the last whole line; it
	// can be appended to if nothing is damaged.
	newest  string
	size    int64
	removed map[spec.InstanceID]bool // by records: an incomplete table does not restore them
	// fresh is set if there was no journal at all.
	fresh bool
}

// replay reads a journal and returns the state that it leads to. What cannot be
// read is skipped and described: a damaged line loses that line, not the table.
func replay(dir string) (*replayed, error) {
	names, err := segmentNames(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		r := newReplayed()
		r.fresh = true
		return r, nil
	}
	// Each segment begins with the table, so that the newest is enough.
	r, err := replayFiles(dir, names[len(names)-1:])
	if err != nil || len(r.damage) == 0 || len(names) == 1 {
		return r, err
	}
	return replayFiles(dir, names)
}

func newReplayed() *replayed {
	return &replayed{entries: map[spec.InstanceID]*entry{}, removed: map[spec.InstanceID]bool{}}
}

func replayFiles(dir string, names []string) (*replayed, error) {
	r := newReplayed()
	for _, name := range names {
		if err := r.file(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	r.newest = names[len(names)-1]
	return r, nil
}

// file replays one segment.
func (r *replayed) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	defer f.Close()
	if err := r.read(filepath.Base(path), f); err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil {
		r.size = info.Size()
	}
	return nil
}

// read replays the text of a segment.
func (r *replayed) read(name string, text io.Reader) error {
	in := bufio.NewReaderSize(text, 256<<10)
	var head *segmentHead
	heads, count := map[spec.InstanceID]*entry{}, 0
	tail := uint64(0) // damaged lines since the last whole one
	for n := 1; ; n++ {
		b, rerr := in.ReadBytes('\n')
		if len(b) == 0 && rerr != nil {
			if !errors.Is(rerr, io.EOF) {
				return fmt.Errorf("read journal: %w", rerr)
			}
			break
		}
		l, problem := parseLine(b)
		switch {
		case problem != "":
			tail++
			r.damage = append(r.damage, fmt.Sprintf("%s line %d %s", name, n, problem))
		case l.Head != nil:
			head = l.Head
			r.begin(head, name)
		case l.Entry != nil:
			heads[l.Entry.Instance.ID] = l.Entry
			count++
			if head != nil && count == head.Entries {
				r.entries = heads // whole: it replaces what older segments said
			}
		default:
			tail = 0
			r.record(&l.record, name)
		}
	}
	r.finish(name, head, heads, count)
	r.seq += tail
	return nil
}

// begin handles the first line of a segment.
func (r *replayed) begin(head *segmentHead, name string) {
	if r.seq != 0 && head.From > r.seq+1 {
		r.damage = append(r.damage, fmt.Sprintf("%s lacks events %d to %d before it", name, r.seq+1, head.From-1))
	}
	r.seq = max(r.seq, head.From-1)
	if head.Entries == 0 {
		r.entries = map[spec.InstanceID]*entry{}
	}
}

// finish checks that the table at the beginning of a segment was complete.
func (r *replayed) finish(name string, head *segmentHead, heads map[spec.InstanceID]*entry, count int) {
	switch {
	case head == nil:
		r.damage = append(r.damage, name+" lacks its first line")
	case count < head.Entries:
		r.damage = append(r.damage, fmt.Sprintf("%s begins with %d of %d instances", name, count, head.Entries))
	default:
		return
	}
	for id, e := range heads {
		if r.entries[id] == nil && !r.removed[id] {
			r.entries[id] = e
		}
	}
}

// record applies one record.
func (r *replayed) record(rec *record, name string) {
	seq := rec.Event.Seq
	if r.seq != 0 && seq > r.seq+1 {
		r.damage = append(r.damage, fmt.Sprintf("%s lacks events %d to %d", name, r.seq+1, seq-1))
	}
	r.seq = max(r.seq, seq)
	in := rec.Event.Instance
	if in == nil {
		return
	}
	if rec.Removed {
		delete(r.entries, in.ID)
		r.removed[in.ID] = true
		return
	}
	delete(r.removed, in.ID)
	e := r.entries[in.ID]
	if e == nil {
		if rec.Launch == nil {
			return // its declaration is lost; the agent declares it again
		}
		e = &entry{}
		r.entries[in.ID] = e
	}
	e.Instance = *in
	if rec.Launch != nil {
		e.Launch = *rec.Launch
		e.Launch.ID = in.ID
	}
	if rec.Keep != nil {
		e.Keep = *rec.Keep
	}
}

// parseLine parses one line; problem says what is wrong with it.
func parseLine(b []byte) (l line, problem string) {
	text, whole := bytes.CutSuffix(b, []byte("\n"))
	if err := json.Unmarshal(text, &l); err != nil {
		if !whole {
			return l, "is cut off"
		}
		return l, "is unreadable"
	}
	if !whole {
		return l, "is cut off"
	}
	known := func(id spec.InstanceID) bool { return id.Job != "" && id.Process != "" }
	switch {
	case l.Head != nil:
		return l, ""
	case l.Entry != nil && known(l.Entry.Instance.ID):
		l.Entry.Launch.ID = l.Entry.Instance.ID
		return l, ""
	case l.Entry == nil && l.Event.Seq != 0 && (l.Event.Instance == nil || known(l.Event.Instance.ID)):
		return l, ""
	}
	return l, "is not a journal record"
}

// keepBroken copies damaged segments to a directory of their own for
// examination, and returns its path.
func keepBroken(dir string, damage []string, now time.Time) (string, error) {
	aside := filepath.Join(dir, "broken-"+now.UTC().Format("20060102T150405.000"))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return "", fmt.Errorf("copy damaged journal: %w", err)
	}
	done := map[string]bool{}
	for _, d := range damage {
		name, _, _ := strings.Cut(d, " ")
		if done[name] {
			continue
		}
		done[name] = true
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(aside, name), b, 0o600)
		}
		if err != nil {
			return aside, fmt.Errorf("copy damaged journal: %w", err)
		}
	}
	return aside, pruneBroken(dir)
}

// maxBroken is how many copies of damaged journals are kept.
const maxBroken = 3

func pruneBroken(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "broken-*"))
	if err != nil {
		return err
	}
	for len(old) > maxBroken { // Glob sorts
		if err := os.RemoveAll(old[0]); err != nil {
			return fmt.Errorf("remove old copy of a damaged journal: %w", err)
		}
		old = old[1:]
	}
	return nil
}
