package ledger

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Copy is one process that was a shard: all its records in sum.
type Copy struct {
	ID    string
	Node  string
	PID   int
	Token uint64
	// First and Last are the times of its first and last record. It is known
	// to have lived in between; the next Alive would have come after Last.
	First, Last time.Duration
	// Ended is set if it wrote that it ends.
	Ended bool
}

// String tells which copy it is and when it lived, in seconds of the clock.
func (c Copy) String() string {
	return fmt.Sprintf("%s on %s (pid %d, token %d) from %.3f s to %.3f s", c.ID, c.Node, c.PID, c.Token, c.First.Seconds(), c.Last.Seconds())
}

// born tells one copy from all others.
type born struct {
	id, node string
	pid      int
	birth    time.Duration
}

// Book is a ledger as its reader keeps it: the copies of every shard.
type Book struct {
	copies map[born]*Copy
}

// NewBook returns an empty book.
func NewBook() *Book { return &Book{copies: map[born]*Copy{}} }

// ReadFile reads the ledger of that path.
func ReadFile(path string) (*Book, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	defer f.Close()
	return Read(f)
}

// Read reads a ledger that may still be written to: a last line without its
// end is left out.
func Read(r io.Reader) (*Book, error) {
	b := NewBook()
	for in := bufio.NewReaderSize(r, 1<<20); ; {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return b, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read ledger: %w", err)
		}
		rec, err := parse(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, err
		}
		b.Add(rec)
	}
}

// Add takes a record in. Records may come in any order.
func (b *Book) Add(r Record) {
	k := born{r.ID, r.Node, r.PID, r.Birth}
	c := b.copies[k]
	if c == nil {
		c = &Copy{ID: r.ID, Node: r.Node, PID: r.PID, Token: r.Token, First: r.At, Last: r.At}
		b.copies[k] = c
	}
	c.First, c.Last = min(c.First, r.At), max(c.Last, r.At)
	c.Ended = c.Ended || r.Event == End
}

// Copies returns the copies of every shard, in the order of their first records.
func (b *Book) Copies() map[string][]Copy {
	shards := map[string][]Copy{}
	for _, c := range b.copies {
		shards[c.ID] = append(shards[c.ID], *c)
	}
	for _, copies := range shards {
		slices.SortFunc(copies, func(a, b Copy) int {
			return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last), cmp.Compare(a.Node, b.Node), a.PID-b.PID)
		})
	}
	return shards
}

// Last returns the copy of the shard that wrote last.
func (b *Book) Last(id string) (Copy, bool) {
	var last Copy
	found := false
	for _, c := range b.copies {
		if c.ID == id && (!found || c.Last > last.Last) {
			last, found = *c, true
		}
	}
	return last, found
}
