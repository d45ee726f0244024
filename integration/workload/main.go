// Command workload is a process whose whole life is its command line, for the
// tests of integration/. It keeps a ledger of its own, beside what meshrun
// says of it: a line when it starts, when it finds a twin, and when it ends.
//
//	workload -ledger FILE -id NAME [-run 2s] [-exit 3] [-every 10ms] [-ignore-term] [-children 2]
//	workload -shard FILE [-every 10ms] [-ignore-term]
//
// The second form is a copy of an exclusive shard, which writes to a ledger of
// the package of that name.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	ledger := flag.String("ledger", "", "file that all workloads append to")
	id := flag.String("id", "", "name of this workload; no two may live at once")
	run := flag.Duration("run", 0, "how long to live; 0 means until a signal")
	code := flag.Int("exit", 0, "exit code when the time is over")
	every := flag.Duration("every", 0, "write a numbered line to stdout that often")
	lines := flag.Int("lines", 0, "write that many lines at once, first")
	ignore := flag.Bool("ignore-term", false, "ignore SIGTERM")
	children := flag.Int("children", 0, "start that many children that ignore SIGTERM and outlive this")
	shard := flag.String("shard", "", "be a copy of an exclusive shard, and write to this ledger")
	flag.Parse()

	if *shard != "" {
		if err := runShard(*shard, cmp.Or(*every, 10*time.Millisecond), *ignore); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(9)
		}
		return
	}
	w := &workload{id: *id, ledger: *ledger, born: time.Now().UnixNano()}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGINT, syscall.SIGTERM)
	if *ignore {
		signal.Ignore(syscall.SIGTERM)
	}
	w.claim()
	for range *children {
		child := exec.Command("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
		if err := child.Start(); err != nil {
			w.end("cannot-start-child", 9)
		}
	}
	for range *lines {
		w.line()
	}
	var over, tick <-chan time.Time
	if *run > 0 {
		over = time.After(*run)
	}
	if *every > 0 {
		tick = time.NewTicker(*every).C
	}
	for {
		select {
		case <-term:
			w.end("term", 0)
		case <-over:
			w.end("over", *code)
		case <-tick:
			w.line()
		}
	}
}

type workload struct {
	id, ledger string
	born       int64 // tells it from another one of its id and pid
	written    int
}

// claim takes a lock that two workloads of one id can't both hold.
func (w *workload) claim() {
	if w.ledger == "" {
		return
	}
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(w.ledger), strings.ReplaceAll(w.id, "/", "_")+".twin"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		w.end("no-lock", 9)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		w.end("twin", 9)
	}
	w.note("start", 0)
}

// line writes the next numbered line; it counts once write(2) has taken it.
func (w *workload) line() {
	text := fmt.Sprintf("%s %d line %d\n", w.id, w.born, w.written+1)
	if _, err := os.Stdout.WriteString(text); err != nil {
		w.end("write-failed", 9)
	}
	w.written++
}

// note appends what happened to the ledger in one write.
func (w *workload) note(what string, code int) {
	if w.ledger == "" {
		return
	}
	f, err := os.OpenFile(w.ledger, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		os.Exit(9)
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %s %d %d %d %d\n", what, w.id, os.Getpid(), w.written, code, w.born)
}

func (w *workload) end(what string, code int) {
	w.note(what, code)
	os.Exit(code)
}
