package integration

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

var (
	stormSeed = flag.Uint64("storm.seed", 0, "seed of the storm; 0 takes one from the clock and prints it")
	stormTime = flag.Duration("storm.time", 25*time.Second, "how long the storm lasts")
)

// The storm's processes: some stay, some crash, some end and are done.
const (
	stormSteady  = 80 // write a line now and then until they are stopped
	stormCrashy  = 80 // live for a while, then exit with a code of their own
	stormOneShot = 40 // run once and complete
)

func (n *node) stormJob(edit int) string {
	var b strings.Builder
	b.WriteString("job \"storm\" {\n")
	process := func(name, args, restart string) {
		fmt.Fprintf(&b, "  process %q {\n    command = [%q, \"-ledger\", %q, \"-id\", \"storm/%s/0\", %s]\n", name, workloadBinary, n.ledger(), name, args)
		fmt.Fprintf(&b, "    restart {\n%s\n    }\n  }\n", restart)
	}
	for i := range stormSteady {
		extra := ""
		if i%20 == edit%20 { // each edit restarts a handful
			extra = fmt.Sprintf(`, "-children", "%d"`, edit%2)
		}
		process(fmt.Sprintf("steady%d", i), fmt.Sprintf(`"-every", "%dms"%s`, 100+i, extra), "      delay = \"10ms\"")
	}
	for i := range stormCrashy {
		process(fmt.Sprintf("crashy%d", i), fmt.Sprintf(`"-every", "70ms", "-run", "%dms", "-exit", "%d"`, 300+37*i, 1+i),
			"      delay     = \"10ms\"\n      max_delay = \"100ms\"\n      attempts  = 1000\n      window    = \"5m\"\n      stable    = \"1s\"")
	}
	for i := range stormOneShot {
		process(fmt.Sprintf("once%d", i), fmt.Sprintf(`"-lines", "20", "-run", "%dms"`, 100+211*i), "      policy = \"never\"")
	}
	b.WriteString("}\n")
	return b.String()
}

// TestStorm kills watchdog and agent at random moments
// while 200 processes start, stop and restart, and then compares what meshrun
// says with what the processes wrote down themselves.
func TestStorm(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	seed := *stormSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("replay with -storm.seed=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	n := newNode(t)
	n.start()
	n.apply(n.stormJob(0))

	kills := map[string]int{}
	for end, edit := time.Now().Add(*stormTime), 0; time.Now().Before(end); {
		time.Sleep(time.Duration(rnd.IntN(700)) * time.Millisecond)
		s, err := n.tryStatus()
		if err != nil || !alive(s.Agent.WatchdogPID) {
			continue // one of them is just coming back: only the other can bring it
		}
		switch what := rnd.IntN(10); {
		case what < 4:
			kills["agent"]++
			_ = syscall.Kill(s.Agent.PID, syscall.SIGKILL)
		case what < 8:
			kills["watchdog"]++
			_ = syscall.Kill(s.Agent.WatchdogPID, syscall.SIGKILL)
		default:
			edit++
			_ = os.WriteFile(n.dir+"/job.hcl", []byte(n.stormJob(edit)), 0o644)
			n.run("apply", "-yes", n.dir+"/job.hcl") // may fail: the agent may be dying
		}
	}
	t.Logf("killed: %v", kills)
	eventually(t, patience, "the node answers after the storm", func() error {
		_, err := n.tryStatus()
		return err
	})
	n.apply(n.stormJob(99))
	n.checkAllThere()
	n.checkNoTwins()
	n.checkNoneUnknown()
	n.checkExits()
	n.must("stop", "storm")
	eventually(t, patience, "everything has ended", func() error {
		if left := n.processes("-ledger"); len(left) > 0 {
			return fmt.Errorf("%d left: %v", len(left), left)
		}
		return nil
	})
	n.checkLines()
}

// checkAllThere: none is lost. Those that crash are not all up at one moment, but
// each is at some.
func (n *node) checkAllThere() {
	n.t.Helper()
	well := map[spec.InstanceID]bool{}
	eventually(n.t, patience, "every instance is as its policy wants", func() error {
		s, err := n.tryStatus()
		if err != nil {
			return err
		}
		if want := stormSteady + stormCrashy + stormOneShot; len(s.Instances) != want {
			return fmt.Errorf("%d instances, want %d", len(s.Instances), want)
		}
		var bad error
		for _, i := range s.Instances {
			once := strings.HasPrefix(i.ID.Process, "once")
			switch {
			case once && i.Phase == spec.PhaseCompleted:
			case once && i.LastExit != nil && i.LastExit.Unknown: // said as it is
			case !once && (i.Phase == spec.PhaseRunning || i.Phase == spec.PhaseBackoff):
			default:
				if !well[i.ID] {
					bad = fmt.Errorf("%s is %s: %s %v", i.ID, i.Phase, i.Reason, i.LastExit)
				}
				continue
			}
			well[i.ID] = true
		}
		return bad
	})
}

// checkNoTwins: none was ever doubled, by the processes' own locks.
func (n *node) checkNoTwins() {
	n.t.Helper()
	if twins := n.ledgerLines("twin"); len(twins) > 0 {
		n.t.Errorf("%d processes met a twin: %v", len(twins), twins)
	}
}

// checkNoneUnknown: every process of the node is an instance's. One that has
// just been started may be told of a moment later; one that stays untold is
// unknown. Those that crash come and go: each look has others to ask after.
func (n *node) checkNoneUnknown() {
	n.t.Helper()
	for end := time.Now().Add(6 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		untold := n.processes("-ledger")
		eventually(n.t, patience, "every process is an instance's", func() error {
			s, err := n.tryStatus()
			if err != nil {
				return err
			}
			for _, i := range s.Instances {
				delete(untold, i.PID)
			}
			for pid, line := range untold {
				if alive(pid) {
					err = fmt.Errorf("%d is not: %s", pid, line)
				}
			}
			return err
		})
	}
}

// checkExits: an exit code is the one with which the process says it ended,
// or unknown.
func (n *node) checkExits() {
	n.t.Helper()
	events := n.events()           // before the ledger, which must not lag behind it
	codes := map[string][]string{} // of all that had that id and pid
	for _, f := range append(n.ledgerLines("over"), n.ledgerLines("term")...) {
		codes[f[1]+" "+f[2]] = append(codes[f[1]+" "+f[2]], f[4])
	}
	checked, unknown, trimmed := 0, 0, 0
	pids := map[string]int{} // by instance and generation
	for _, ev := range events {
		i := ev.Instance
		if i == nil || i.ID.Job != "storm" {
			continue
		}
		generation := fmt.Sprintf("%s %d", i.ID, i.Generation)
		if i.PID != 0 {
			pids[generation] = i.PID
		}
		if ev.Type != spec.EventExited || i.LastExit == nil {
			continue
		}
		pid := pids[generation]
		said, ok := codes[fmt.Sprintf("%s %d", i.ID, pid)]
		switch {
		case i.LastExit.Unknown:
			unknown++
		case i.LastExit.Signal != "":
		case pid == 0 && !n.journalIsWhole(events): // its start is not kept any more
			trimmed++
		case !ok:
			n.t.Errorf("%s pid %d: exit %d, but it did not write that it ended", i.ID, pid, i.LastExit.Code)
		case !slices.Contains(said, strconv.Itoa(i.LastExit.Code)):
			n.t.Errorf("%s pid %d: exit %d, but it ended with %v", i.ID, pid, i.LastExit.Code, said)
		default:
			checked++
		}
	}
	n.t.Logf("%d exit codes right, %d unknown, %d of starts that are not kept any more", checked, unknown, trimmed)
	if checked == 0 {
		n.t.Error("no exit code was checked")
	}
}

// journalIsWhole reports whether the events go back to the first of the node.
func (n *node) journalIsWhole(events []spec.Event) bool {
	return slices.ContainsFunc(events, func(ev spec.Event) bool { return strings.HasSuffix(ev.ID, "/1") })
}

// checkLines: of every process, the log holds each line from the first to the
// last that its own ledger counts.
func (n *node) checkLines() {
	n.t.Helper()
	got := map[string]int{} // "id born" → last line number
	total := 0
	for _, line := range n.logLines("storm") {
		f := strings.Fields(line.Text)
		if len(f) != 4 || f[2] != "line" {
			continue
		}
		number, err := strconv.Atoi(f[3])
		key := f[0] + " " + f[1]
		if err != nil || number != got[key]+1 {
			n.t.Errorf("%s: line %s follows line %d", key, f[3], got[key])
		}
		got[key] = number
		total++
	}
	for _, kind := range []string{"over", "term"} {
		for _, f := range n.ledgerLines(kind) {
			key := f[1] + " " + f[5]
			if written, _ := strconv.Atoi(f[3]); got[key] != written {
				n.t.Errorf("%s wrote %d lines, the log holds %d", key, written, got[key])
			}
		}
	}
	n.t.Logf("%d lines, none lost", total)
	if total == 0 {
		n.t.Error("no line was checked")
	}
}
