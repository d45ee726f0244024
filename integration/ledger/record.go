package ledger

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Event says which moment of a copy's life a record is of.
type Event string

// The moments. A copy that was killed has no End: its last Alive stands for it.
const (
	Start Event = "start"
	Alive Event = "alive"
	End   Event = "end"
)

// Record is one line of a ledger.
type Record struct {
	// At is when, on CLOCK_BOOTTIME, which all hosts of a test share.
	At time.Duration
	// ID names the shard ("job/process/shard").
	ID    string
	Token uint64
	Node  string
	PID   int
	// Birth is the copy's own first moment: it tells it from another copy
	// that has the same node and pid.
	Birth time.Duration
	Event Event
}

// String returns the record as its line, without the end of the line.
func (r Record) String() string {
	return fmt.Sprintf("%d %s %d %s %d %d %s", int64(r.At), r.ID, r.Token, r.Node, r.PID, int64(r.Birth), r.Event)
}

// parse reads a line.
func parse(line string) (Record, error) {
	f := strings.Split(line, " ")
	if len(f) != 7 {
		return Record{}, fmt.Errorf("read record %q: %d fields, want 7", line, len(f))
	}
	at, err1 := strconv.ParseInt(f[0], 10, 64)
	token, err2 := strconv.ParseUint(f[2], 10, 64)
	pid, err3 := strconv.Atoi(f[4])
	birth, err4 := strconv.ParseInt(f[5], 10, 64)
	for _, err := range []error{err1, err2, err3, err4} {
		if err != nil {
			return Record{}, fmt.Errorf("read record %q: %w", line, err)
		}
	}
	r := Record{
		At: time.Duration(at), ID: f[1], Token: token, Node: f[3], PID: pid,
		Birth: time.Duration(birth), Event: Event(f[6]),
	}
	if r.Event != Start && r.Event != Alive && r.Event != End {
		return Record{}, fmt.Errorf("read record %q: no such event", line)
	}
	return r, nil
}

// Now is the time on the clock of all ledgers: CLOCK_BOOTTIME.
func Now() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock is in every kernel since 2.6.39
	}
	return time.Duration(ts.Nano())
}

// Writer writes the records of one copy.
type Writer struct {
	file *os.File
	of   Record
}

// Open opens a ledger, which has to exist, for one copy of a shard.
func Open(path, id, node string, token uint64) (*Writer, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return &Writer{file: file, of: Record{ID: id, Node: node, Token: token, PID: os.Getpid(), Birth: Now()}}, nil
}

// Write appends a record of this moment in one write, so that records of many
// writers never mix.
func (w *Writer) Write(what Event) error {
	r := w.of
	r.At, r.Event = Now(), what
	if _, err := w.file.WriteString(r.String() + "\n"); err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}
