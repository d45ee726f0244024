// Command bench measures meshrun against the least that a supervisor can be (a
// loop of posix_spawn and waitpid in C) in the same run, and prints a table.
// The ratios are what counts: absolute figures vary from machine to machine.
//
//	go run ./integration/bench [-n 1000] [-rounds 3] [-meshrun bin/meshrun]
package main

import (
	"embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"
)

//go:embed c/*.c
var sources embed.FS

// row is a line of the table.
type row struct{ figure, meshrun, bare, ratio, bound string }

func main() {
	n := flag.Int("n", 1000, "how many processes")
	rounds := flag.Int("rounds", 3, "how often starting is measured; the median counts")
	binary := flag.String("meshrun", "bin/meshrun", "the binary to measure")
	flag.Parse()
	if err := run(*n, *rounds, *binary); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(n, rounds int, binary string) error {
	binary, err := filepath.Abs(binary)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "mrbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{dir: dir, binary: binary, n: n}
	if err := b.compile(); err != nil {
		return err
	}
	var table []row
	for _, step := range []func(int) ([]row, error){b.starting, b.recovery, b.footprint, b.edit, b.logs} {
		rows, err := step(rounds)
		table = append(table, rows...)
		if err != nil {
			b.stopNode()
			return err
		}
	}
	if err := b.stopNode(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d processes\tmeshrun\tbare loop\tratio\taim\n", n)
	for _, r := range table {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.figure, r.meshrun, r.bare, r.ratio, r.bound)
	}
	return w.Flush()
}

// compile builds the C programs into the bench's directory.
func (b *bench) compile() error {
	for _, name := range []string{"mark", "bare", "chatter"} {
		src, err := sources.ReadFile("c/" + name + ".c")
		if err != nil {
			return err
		}
		file := filepath.Join(b.dir, name+".c")
		if err := os.WriteFile(file, src, 0o600); err != nil {
			return err
		}
		out, err := exec.Command("cc", "-O2", "-static", "-o", b.path(name), file).CombinedOutput()
		if err != nil {
			return fmt.Errorf("compile %s: %w\n%s", name, err, out)
		}
	}
	return nil
}

// starting times N processes from the command to the last one running, the
// bare loop and meshrun in turn. The last round's node is left running.
func (b *bench) starting(rounds int) ([]row, error) {
	var bare, ours []time.Duration
	for i := range rounds {
		if err := b.stopNode(); err != nil {
			return nil, err
		}
		took, err := b.bareStart()
		if err != nil {
			return nil, err
		}
		bare = append(bare, took)
		if took, err = b.meshrunStart(); err != nil {
			return nil, err
		}
		ours = append(ours, took)
		fmt.Fprintf(os.Stderr, "start, round %d: bare %v, meshrun %v\n", i+1, bare[i].Round(time.Millisecond), took.Round(time.Millisecond))
	}
	return []row{compare("apply to all running", median(ours), median(bare), "≤ 1.5 ×")}, nil
}

// recovery kills processes one at a time and times their successors.
func (b *bench) recovery(int) ([]row, error) {
	const kills = 100
	bare, err := b.bareRecovery(kills)
	if err != nil {
		return nil, err
	}
	ours, err := b.meshrunRecovery(kills)
	if err != nil {
		return nil, err
	}
	return []row{
		compare("kill -9 to successor, p50", median(ours), median(bare), "≤ 2 ×"),
		compare("kill -9 to successor, p99", percentile(ours, 99), percentile(bare, 99), ""),
	}, nil
}

// footprint reads what the watchdog and the agent hold and use while idle.
func (b *bench) footprint(int) ([]row, error) {
	pids := []int{b.watchdog, b.agent}
	if err := b.settle(); err != nil {
		return nil, err
	}
	before, err := ticks(pids)
	if err != nil {
		return nil, err
	}
	time.Sleep(10 * time.Second)
	after, err := ticks(pids)
	if err != nil {
		return nil, err
	}
	rows := []row{{figure: "CPU ticks in 10 s idle", meshrun: fmt.Sprint(after - before), bound: "0"}}
	var total int64
	for i, name := range []string{"watchdog", "agent"} {
		pss, threads, err := memory(pids[i])
		if err != nil {
			return nil, err
		}
		total += pss
		rows = append(rows, row{figure: "PSS of the " + name, meshrun: fmt.Sprintf("%.1f MiB, %d threads", float64(pss)/1024, threads)})
	}
	return append(rows, row{figure: "PSS together", meshrun: fmt.Sprintf("%.1f MiB", float64(total)/1024), bound: "≤ 40 MiB"}), nil
}

// edit changes one process of the N in its file, by rename as editors do.
func (b *bench) edit(int) ([]row, error) {
	var took []time.Duration
	for i := range 10 {
		d, restarted, err := b.editOne(i*97%b.n, fmt.Sprintf("edit-%d", i))
		if err != nil {
			return nil, err
		}
		if restarted != 1 {
			return nil, fmt.Errorf("an edit of one process restarted %d", restarted)
		}
		took = append(took, d)
	}
	return []row{
		{figure: "save to restarted, p50", meshrun: short(median(took)), bound: "≤ 100 ms"},
		{figure: "save to restarted, worst of 10", meshrun: short(slices.Max(took)), bound: "≤ 100 ms"},
	}, nil
}

// logs compares a child that writes lines to meshrun with one writing to a file.
func (b *bench) logs(int) ([]row, error) {
	const lines = 4_000_000
	file, err := b.chatToFile(lines)
	if err != nil {
		return nil, err
	}
	ours, cpu, kept, err := b.chatToMeshrun(lines)
	if err != nil {
		return nil, err
	}
	if kept != lines {
		return nil, fmt.Errorf("the log holds %d of %d lines", kept, lines)
	}
	rate := func(d time.Duration) string {
		return fmt.Sprintf("%.0f MB/s", lines*100/1e6/d.Seconds())
	}
	return []row{
		{"log throughput", rate(ours), rate(file) + " (to a file)", fmt.Sprintf("%.2f ×", file.Seconds()/ours.Seconds()), ""},
		{figure: "watchdog's CPU for it", meshrun: fmt.Sprintf("%v (%.0f%% of a core)", cpu.Round(10*time.Millisecond), 100*cpu.Seconds()/ours.Seconds())},
	}, nil
}

func compare(figure string, ours, bare time.Duration, bound string) row {
	return row{figure, short(ours), short(bare), fmt.Sprintf("%.2f ×", ours.Seconds()/bare.Seconds()), bound}
}

func short(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

func median(ds []time.Duration) time.Duration { return percentile(ds, 50) }

func percentile(ds []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(ds))
	return s[(len(s)-1)*p/100]
}

var errTimeout = errors.New("timed out")
