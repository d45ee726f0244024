package ledger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// life is a copy as a test writes it: on node a, b, …; in milliseconds.
type life struct {
	id          string
	node        string
	token       uint64
	first, last int
}

// book keeps the lives, each with a record every 10 ms.
func book(lives ...life) *Book {
	b := NewBook()
	for i, l := range lives {
		r := Record{ID: l.id, Node: l.node, Token: l.token, PID: 100 + i, Birth: ms(l.first), Event: Start}
		for at := l.first; at <= l.last; at += 10 {
			r.At = ms(at)
			b.Add(r)
			r.Event = Alive
		}
		r.At = ms(l.last)
		b.Add(r)
	}
	return b
}

func ms(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func TestCopiesOfAShardOverlap(t *testing.T) {
	cases := map[string]struct {
		lives []life
		want  []time.Duration
	}{
		"one after the other": {[]life{{"j/p/0", "a", 1, 0, 100}, {"j/p/0", "b", 2, 101, 200}}, nil},
		"different shards":    {[]life{{"j/p/0", "a", 1, 0, 100}, {"j/p/1", "b", 2, 0, 100}}, nil},
		"by a moment":         {[]life{{"j/p/0", "a", 1, 0, 100}, {"j/p/0", "b", 2, 100, 200}}, []time.Duration{0}},
		"by much":             {[]life{{"j/p/0", "a", 1, 0, 100}, {"j/p/0", "b", 2, 60, 200}}, []time.Duration{ms(40)}},
		"one within another":  {[]life{{"j/p/0", "a", 1, 0, 900}, {"j/p/0", "b", 2, 60, 200}}, []time.Duration{ms(140)}},
		"on one node":         {[]life{{"j/p/0", "a", 1, 0, 100}, {"j/p/0", "a", 1, 50, 200}}, []time.Duration{ms(50)}},
		"a long-lived one behind a short one": {
			[]life{{"j/p/0", "a", 1, 0, 900}, {"j/p/0", "b", 2, 100, 200}, {"j/p/0", "c", 3, 500, 1000}},
			[]time.Duration{ms(100), ms(400)},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got []time.Duration
			for _, o := range book(c.lives...).Overlaps() {
				got = append(got, o.For)
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("overlaps of %v, want %v", got, c.want)
			}
		})
	}
}

func TestTokensGrowFromNodeToNode(t *testing.T) {
	cases := map[string]struct {
		lives  []life
		faults int
	}{
		"greater on another node":     {[]life{{"j/p/0", "a", 5, 0, 10}, {"j/p/0", "b", 6, 20, 30}}, 0},
		"the same on another node":    {[]life{{"j/p/0", "a", 5, 0, 10}, {"j/p/0", "b", 5, 20, 30}}, 1},
		"smaller on another node":     {[]life{{"j/p/0", "a", 5, 0, 10}, {"j/p/0", "b", 4, 20, 30}}, 1},
		"the same on the same node":   {[]life{{"j/p/0", "a", 5, 0, 10}, {"j/p/0", "a", 5, 20, 30}}, 0},
		"smaller on the same node":    {[]life{{"j/p/0", "a", 5, 0, 10}, {"j/p/0", "a", 4, 20, 30}}, 1},
		"none":                        {[]life{{"j/p/0", "a", 0, 0, 10}}, 1},
		"of another shard is nothing": {[]life{{"j/p/0", "a", 5, 0, 10}, {"j/p/1", "b", 4, 20, 30}}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := book(c.lives...).TokenFaults(); len(got) != c.faults {
				t.Errorf("faults %q, want %d", got, c.faults)
			}
		})
	}
}

func TestGapsAreFromTheLastRecordToTheNextFirst(t *testing.T) {
	b := book(
		life{"j/p/0", "a", 1, 0, 100}, life{"j/p/0", "b", 2, 350, 1000}, // down for 250 ms
		life{"j/p/1", "a", 3, 0, 1000},                                  // never down
		life{"j/p/2", "a", 4, 0, 400},                                   // not back
		life{"j/p/3", "a", 5, 0, 100}, life{"j/p/3", "a", 5, 120, 1000}, // a restart
	)
	gaps := b.Gaps(0, ms(1000), ms(50))
	want := map[string]Gap{
		"j/p/0": {ID: "j/p/0", From: ms(100), To: ms(350), Moved: true},
		"j/p/2": {ID: "j/p/2", From: ms(400), To: ms(1000), Open: true},
		"j/p/3": {ID: "j/p/3", From: ms(100), To: ms(120)},
	}
	if fmt.Sprint(gaps) != fmt.Sprint(want) {
		t.Errorf("gaps %v, want %v", gaps, want)
	}
	if g := Longest(gaps); g.ID != "j/p/2" {
		t.Errorf("longest %v, want that of j/p/2", g)
	}
	if gaps := b.Gaps(ms(360), ms(440), ms(50)); len(gaps) != 0 {
		t.Errorf("after the hand-over and before j/p/2 is missed: %v, want none", gaps)
	}
	if g := Longest(nil); g.For() != 0 {
		t.Errorf("longest of none: %v", g)
	}
}

// However many copies follow each other, the judge has nothing to say; and
// whichever of them is moved into its predecessor's life, he finds it.
func TestTheJudgeFindsOneOverlapAmongMany(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var lives []life
		at := 0
		for i := range rapid.IntRange(2, 40).Draw(t, "copies") {
			first := at + rapid.IntRange(1, 5000).Draw(t, "gap")
			at = first + rapid.IntRange(1, 3000).Draw(t, "life")
			lives = append(lives, life{"j/p/0", string(rune('a' + i%5)), uint64(i + 1), first, at})
		}
		if b := book(lives...); len(b.Overlaps())+len(b.TokenFaults()) != 0 {
			t.Fatalf("one after the other: %v %v", b.Overlaps(), b.TokenFaults())
		}
		i := rapid.IntRange(1, len(lives)-1).Draw(t, "moved")
		before := lives[i-1]
		lives[i].first = rapid.IntRange(before.first, before.last).Draw(t, "to")
		found := false
		for _, o := range book(lives...).Overlaps() {
			found = found || (o.New.Token == lives[i].token || o.Old.Token == lives[i].token)
		}
		if !found {
			t.Fatalf("%v in the life of %v was not found", lives[i], before)
		}
	})
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	if _, err := Open(path, "j/p/0", "a", 7); err == nil {
		t.Fatal("a ledger that nobody has made was opened")
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	before := Now()
	w, err := Open(path, "j/p/0", "a", 7)
	if err != nil {
		t.Fatal(err)
	}
	for _, what := range []Event{Start, Alive, End} {
		if err := w.Write(what); err != nil {
			t.Fatal(err)
		}
	}
	b, err := ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := b.Last("j/p/0")
	if !ok || c.Node != "a" || c.Token != 7 || c.PID != os.Getpid() || !c.Ended || c.First < before || c.Last < c.First || c.Last > Now() {
		t.Errorf("read %+v, %v", c, ok)
	}
}

func TestATornLastLineIsLeftOutAndAnyOtherIsRefused(t *testing.T) {
	whole := Record{At: 1, ID: "j/p/0", Token: 1, Node: "a", PID: 2, Birth: 1, Event: Start}.String() + "\n"
	if b, err := Read(strings.NewReader(whole + whole[:9])); err != nil || len(b.Copies()["j/p/0"]) != 1 {
		t.Errorf("torn at the end: %v, %v", b, err)
	}
	for _, bad := range []string{"what\n", "1 j/p/0 x a 2 1 start\n", "1 j/p/0 1 a 2 1 stop\n"} {
		if _, err := Read(strings.NewReader(whole + bad + whole)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
