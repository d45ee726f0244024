package watchdog

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

// book is a journal with the table that its records lead to.
type book struct {
	*journal
	entries map[spec.InstanceID]*entry
}

func newBook(dir string) *book {
	b := &book{entries: map[spec.InstanceID]*entry{}, journal: &journal{dir: dir, log: hclog.NewNullLogger(),
		ring: newRing(0), segmentSize: defaultSegmentSize, segments: defaultSegments}}
	b.table = func() (out []entry) {
		for _, e := range b.entries {
			out = append(out, *e)
		}
		return out
	}
	return b
}

// note journals that an instance is in a phase; gone removes it.
func (b *book) note(shard int, p phase, generation uint64) {
	id := spec.InstanceID{Job: "j", Process: "p", Shard: shard}
	e := &entry{Launch: spec.Launch{ID: id, Argv: []string{"x"}, Env: []string{"TOKEN=secret"}},
		Instance: spec.Instance{ID: id, Phase: p.public(), Generation: generation}, Keep: keep{Phase: p}}
	b.entries[id] = e
	if p == gone {
		delete(b.entries, id)
	}
	in := e.Instance
	b.append(record{Event: spec.Event{Time: epoch, Type: spec.EventStarted, Severity: spec.Info, Instance: &in},
		Launch: &e.Launch, Keep: &e.Keep, Removed: p == gone})
}

func mustReplay(t testing.TB, dir string) *replayed {
	t.Helper()
	r, err := replay(dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReplayLeadsToTheSameTable(t *testing.T) {
	root := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, fmt.Sprint(n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		b := newBook(dir)
		b.segmentSize = int64(rapid.IntRange(500, 5000).Draw(t, "segment"))
		for i := range rapid.IntRange(1, 60).Draw(t, "records") {
			b.note(rapid.IntRange(0, 4).Draw(t, "shard"), phase(rapid.IntRange(0, int(numPhases)-1).Draw(t, "phase")), uint64(i))
			if rapid.Bool().Draw(t, "flush") && !b.flush(false) {
				t.Fatal(b.err)
			}
		}
		if !b.flush(false) {
			t.Fatal(b.err)
		}
		b.close()
		r, err := replay(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.damage) > 0 || r.seq != b.seq || !reflect.DeepEqual(r.entries, b.entries) {
			t.Fatalf("replay says %d: %+v (%v)\nwant %d: %+v", r.seq, r.entries, r.damage, b.seq, b.entries)
		}
		names, err := segmentNames(dir)
		if err != nil || len(names) > defaultSegments {
			t.Fatalf("%d segments are kept: %v", len(names), err)
		}
	})
}

// segments returns the paths of a journal's segments.
func segments(t *testing.T, dir string) []string {
	t.Helper()
	names, err := segmentNames(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = filepath.Join(dir, names[i])
	}
	return names
}

func TestDamageCostsTheDamagedLinesOnly(t *testing.T) {
	for name, c := range map[string]struct {
		spoil     func(b []byte) []byte
		words     string
		instances int
	}{
		"tail cut off":      {func(b []byte) []byte { return b[:len(b)-10] }, "is cut off", 4},
		"tail of zeros":     {func(b []byte) []byte { return append(b, make([]byte, 100)...) }, "is cut off", 5},
		"garbage in middle": {func(b []byte) []byte { return spoilLine(b, 3) }, "is unreadable", 4},
		"first line gone":   {func(b []byte) []byte { return spoilLine(b, 0) }, "lacks its first line", 5},
		"all gone":          {func([]byte) []byte { return nil }, "lacks its first line", 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := newBook(dir)
			b.flush(false)
			for i := range 5 {
				b.note(i, running, 1)
				b.flush(false)
			}
			b.close()
			path := segments(t, dir)[0]
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.spoil(text), 0o600); err != nil {
				t.Fatal(err)
			}
			r := mustReplay(t, dir)
			if len(r.entries) != c.instances || !strings.Contains(strings.Join(r.damage, "; "), c.words) {
				t.Errorf("%d instances, damage %q; want %d, %q", len(r.entries), r.damage, c.instances, c.words)
			}
			if name == "tail cut off" && r.seq != 5 {
				t.Errorf("goes on after event %d: number 5 may have been told already", r.seq)
			}
			aside, err := keepBroken(dir, r.damage, epoch)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := os.ReadFile(filepath.Join(aside, filepath.Base(path)))
			if err != nil || !bytes.Equal(kept, c.spoil(text)) {
				t.Errorf("the copy is not what was found: %v", err)
			}
		})
	}
}

func spoilLine(b []byte, n int) []byte {
	lines := bytes.SplitAfter(bytes.Clone(b), []byte("\n"))
	for i := range lines[n][:len(lines[n])-1] {
		lines[n][i] = '#'
	}
	return bytes.Join(lines, nil)
}

func TestFullDiskStopsNothingAndIsMadeUpFor(t *testing.T) {
	dir := t.TempDir()
	b := newBook(dir)
	b.note(0, running, 1)
	if !b.flush(false) {
		t.Fatal(b.err)
	}
	// A file that cannot be written is as good as a full disk.
	whole := b.file
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("no /dev/full")
	}
	b.file = full
	for i := range 5 {
		b.note(i+1, running, 1)
		if b.flush(false) {
			t.Fatal("a write to a full disk succeeded")
		}
	}
	if events, ok, _ := b.ring.after(0, 100); !ok || len(events) != 6 {
		t.Errorf("%d events are told while the disk is full", len(events))
	}
	if b.err == nil || b.writes.Failures() != 5 {
		t.Errorf("%d failures are known: %v", b.writes.Failures(), b.err)
	}
	b.file = whole
	if !b.flush(false) || b.err != nil {
		t.Fatal(b.err)
	}
	if r := mustReplay(t, dir); r.seq != 6 || len(r.entries) != 6 || len(r.damage) != 0 {
		t.Errorf("after the disk had room again: %d events, %d instances, %q", r.seq, len(r.entries), r.damage)
	}
}

func TestMoreThanMemoryHoldsOnAFullDiskLeadsToANewTable(t *testing.T) {
	dir := t.TempDir()
	b := newBook(dir)
	b.flush(false)
	b.note(0, running, 1)
	b.flush(false)
	b.pending = make([]byte, maxPending)
	b.note(1, running, 1)
	if !b.lost {
		t.Fatal("memory has no bound")
	}
	if !b.flush(false) {
		t.Fatal(b.err)
	}
	if r := mustReplay(t, dir); len(r.entries) != 2 || r.seq != 2 {
		t.Errorf("replay says %d: %d instances, %q", r.seq, len(r.entries), r.damage)
	}
}

func TestJournalIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	b := newBook(dir)
	b.note(0, running, 1)
	b.flush(false)
	info, err := os.Stat(segments(t, dir)[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v (%v)", info.Mode(), err)
	}
}

func TestRingForgetsTheOldest(t *testing.T) {
	r := newRing(0)
	var all []spec.Event
	for i := range ringSize + 100 {
		all = append(all, spec.Event{Seq: uint64(i + 1), Time: time.Time{}})
	}
	r.add(all, false)
	if _, ok, _ := r.after(50, 10); ok {
		t.Error("it claims to know what it has forgotten")
	}
	got, ok, _ := r.after(ringSize, 1000)
	if !ok || len(got) != 100 || got[0].Seq != ringSize+1 {
		t.Errorf("got %d events from %v", len(got), got[:1])
	}
	if _, ok, _ := r.after(ringSize+200, 10); ok {
		t.Error("it claims to know what was never told")
	}
}

func TestFollowersAreWokenNowAndThenInABurstAndAtItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRing(0)
		seq := uint64(0)
		add := func(n int, more bool) (woken bool) {
			_, wake := r.wait()
			events := make([]spec.Event, n)
			for i := range events {
				seq++
				events[i].Seq = seq
			}
			r.add(events, more)
			select {
			case <-wake:
				return true
			default:
				return false
			}
		}
		for i, step := range []struct {
			after time.Duration
			n     int
			more  bool
			woken bool
		}{
			{0, 1, true, true}, // the first of a burst is told at once
			{burstPause / 2, 10, true, false},
			{burstPause / 2, 10, true, true},
			{0, ringSize / 4, true, false},
			{0, ringSize / 4, true, true}, // before the ring forgets them
			{0, 1, true, false},
			{0, 0, false, true}, // the end of the burst
			{0, 0, false, false},
			{0, 1, false, true}, // what comes alone
		} {
			time.Sleep(step.after)
			if woken := add(step.n, step.more); woken != step.woken {
				t.Errorf("step %d: woken is %v, want %v", i, woken, step.woken)
			}
		}
	})
}

// FuzzReplay: whatever is in a journal, reading it neither fails nor panics,
// and what it says can be journalled and read again.
func FuzzReplay(f *testing.F) {
	dir := f.TempDir()
	b := newBook(dir)
	b.note(0, running, 1)
	b.note(1, backoff, 2)
	b.flush(false)
	b.close()
	text, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%020d%s", 1, segmentSuffix)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"head":{"from":1,"entries":1}}` + "\n" + `{"entry":{}}` + "\n" + `{"event":{"seq":18446744073709551615}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newReplayed()
		if err := r.read("segment", bytes.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		var all []entry
		for id, e := range r.entries {
			if e.Instance.ID != id || e.Launch.ID != id {
				t.Fatalf("%s is kept as %s", e.Instance.ID, id)
			}
			all = append(all, *e)
		}
		again, err := encodeSegment(segmentHead{From: 1, Entries: len(all)}, all)
		if err != nil {
			t.Fatal(err)
		}
		back := newReplayed()
		if err := back.read("again", bytes.NewReader(again)); err != nil || len(back.damage) > 0 || len(back.entries) != len(all) {
			t.Fatalf("%d instances read back as %d: %q, %v", len(all), len(back.entries), back.damage, err)
		}
	})
}
