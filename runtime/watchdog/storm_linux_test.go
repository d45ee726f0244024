package watchdog

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// TestStorm kills the watchdog at random moments while instances start, end
// and are replaced, and then looks for what the laws forbid: one lost, one
// doubled, one unknown, an event number twice or never, a line of output gone.
func TestStorm(t *testing.T) {
	const instances, kills = 20, 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	dir := t.TempDir()
	d := startDaemon(t, dir)
	launches := make([]spec.Launch, instances)
	for i := range launches {
		// By generation and nonce, for pids come again.
		l := shell("storm", `g=$MESHRUN_GENERATION; i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo "line $g $i"; sleep 0.01; done; echo "end $g"; exit 4`)
		l.ID.Shard = i
		l.Restart.Attempts, l.Restart.Exhausted = spec.MaxAttempts, spec.ExhaustedRetry
		launches[i] = l
	}
	// On a slow machine none of them would come to anything in the storm.
	d.declare(launches...)
	for _, l := range launches {
		d.awaitOutput(l.ID, "line 1")
	}
	seq := uint64(0)
	for range kills {
		for i := range launches {
			if random.IntN(10) == 0 {
				launches[i].Epoch++
			}
		}
		// It may be killed while it is asked.
		asked := make(chan struct{})
		go func() { defer close(asked); d.client.Declare(t.Context(), launches, nil) }()
		time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond)
		d.kill()
		<-asked
		keepers := holdAll(dir, launches) // as the agent does
		d = startDaemon(t, dir)
		for _, k := range keepers {
			k.Close()
		}
		seq = checkEvents(t, d, seq)
	}
	for i := range launches { // at rest
		launches[i].Epoch++
		launches[i].Argv = []string{"/bin/sleep", "1000"}
		launches[i].Hash = "rest"
	}
	d.declare(launches...)
	d.await("all are at rest", func() bool {
		table := d.tableOrNil()
		return len(table) == instances && !slices.ContainsFunc(table, func(in spec.Instance) bool {
			return in.Phase != spec.PhaseRunning || in.Hash != "rest"
		})
	})
	checkProcesses(t, d, instances)
	checkEvents(t, d, seq)
	for _, l := range launches {
		checkLines(t, dir, l.ID)
	}
}

func holdAll(dir string, launches []spec.Launch) (held []interface{ Close() error }) {
	for _, l := range launches {
		if h, err := HoldOutput(dir, l.ID); err == nil {
			held = append(held, h)
		}
	}
	return held
}

// checkProcesses compares what is alive with what is told.
func checkProcesses(t *testing.T, d *daemon, want int) {
	t.Helper()
	id, err := os.ReadFile(filepath.Join(d.dir, "watchdog", "id"))
	if err != nil {
		t.Fatal(err)
	}
	told := map[int]bool{}
	for _, in := range d.tableOrNil() {
		told[in.PID] = true
		// While it executes its program, nobody can read its environment.
		d.await("its environment can be read", func() bool { return readMarks(in.PID)[envWatchdog] != "" })
	}
	procs, _ := filepath.Glob("/proc/[0-9]*")
	alive := 0
	for _, p := range procs {
		var pid int
		fmt.Sscan(filepath.Base(p), &pid)
		m := readMarks(pid)
		if m[envWatchdog] != strings.TrimSpace(string(id)) {
			continue
		}
		alive++
		if !told[pid] {
			t.Errorf("process %d of %s is unknown to the table", pid, m[envInstance])
		}
	}
	if alive != want {
		t.Errorf("%d processes are alive, want %d", alive, want)
	}
}

// checkEvents reads what came after seq and demands numbers without gaps, and
// no unread exit codes told as others than they were.
func checkEvents(t *testing.T, d *daemon, seq uint64) uint64 {
	t.Helper()
	for _, e := range d.events(seq) {
		if e.Seq != seq+1 {
			t.Fatalf("event %d follows %d: %s %s", e.Seq, seq, e.Type, e.Message)
		}
		seq = e.Seq
		// A line that the kill has cut off is what a storm is made of.
		if e.Type == spec.EventStray || (e.Type == spec.EventStateRepaired && !strings.Contains(e.Message, "is cut off")) {
			t.Errorf("%s: %s", e.Type, e.Message)
		}
		if e.Type == spec.EventExited && e.Instance.Hash != "rest" {
			if x := e.Instance.LastExit; !x.Unknown && x.Signal != "SIGTERM" && x.Code != 4 {
				t.Errorf("%s ended with 4 or SIGTERM and is told as %v", e.Instance.ID, x)
			}
		}
	}
	return seq
}

// checkLines demands that of each generation that said it had ended, every
// line is there, and none twice.
func checkLines(t *testing.T, dir string, id spec.InstanceID) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "logs", id.String(), "current.log"))
	if err != nil {
		t.Error(err)
		return
	}
	lines := map[string]int{}
	var ended []string
	for l := range strings.Lines(string(b)) {
		_, text, _ := strings.Cut(strings.TrimSpace(l), "F ")
		lines[text]++
		if generation, ok := strings.CutPrefix(text, "end "); ok {
			ended = append(ended, generation)
		}
	}
	for _, generation := range ended {
		for i := range 30 {
			if n := lines[fmt.Sprintf("line %s %d", generation, i+1)]; n != 1 {
				t.Errorf("%s: line %d of generation %s is there %d times", id, i+1, generation, n)
			}
		}
	}
}
