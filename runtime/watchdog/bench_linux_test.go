package watchdog

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// benchDaemon is a watchdog in a process of its own.
func benchDaemon(b *testing.B) (*Client, *exec.Cmd, string) {
	b.Helper()
	dir := b.TempDir()
	cmd := exec.Command(os.Args[0], "watchdog-main", dir, "quiet")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait(); killMarked(dir); removeRunDir(dir); removeGroups(dir) })
	c := NewClient(dir)
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := c.Health(b.Context()); err == nil {
			return c, cmd, dir
		} else if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

func pausers(n int) []spec.Launch {
	out := make([]spec.Launch, n)
	for i := range out {
		l := shell("bench", "")
		l.Argv, l.Hash = []string{"/bin/sleep", "10000"}, "x"
		l.ID.Shard = i
		l.Restart.Attempts = spec.MaxAttempts
		out[i] = l
	}
	return out
}

func awaitRunning(b *testing.B, c *Client, n int) {
	b.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		h, err := c.Health(b.Context())
		if err == nil && h.Processes == n && h.Queued == 0 {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("%+v %v", h, err)
		}
	}
}

// BenchmarkStartThousand declares 1,000 processes in one batch and waits until
// all are forked; bare/op is a loop that only forks the same, for comparison.
func BenchmarkStartThousand(b *testing.B) {
	b.Run("free", func(b *testing.B) { startThousand(b, nil) })
	b.Run("limited", func(b *testing.B) { startThousand(b, &spec.Resources{CPU: 1, Memory: 64 << 20, PIDs: 100}) })
}

func startThousand(b *testing.B, r *spec.Resources) {
	const n = 1000
	for b.Loop() {
		bare := bareStarts(b, n)
		c, cmd, _ := benchDaemon(b)
		all := pausers(n)
		for i := range all {
			all[i].Resources = r
		}
		begin := time.Now()
		if err := c.Declare(b.Context(), all, nil); err != nil {
			b.Fatal(err)
		}
		awaitRunning(b, c, n)
		took := time.Since(begin)
		b.ReportMetric(float64(bare.Microseconds())/n, "bare-µs/start")
		b.ReportMetric(float64(took.Microseconds())/n, "µs/start")
		b.ReportMetric(float64(took)/float64(bare), "×bare")
		ticks := cpuTicks(b, cmd.Process.Pid)
		time.Sleep(3 * time.Second)
		b.ReportMetric(float64(cpuTicks(b, cmd.Process.Pid)-ticks), "idle-ticks/3s")
		pss, threads := memory(b, cmd.Process.Pid)
		b.ReportMetric(pss, "MiB-PSS")
		b.ReportMetric(threads, "threads")
	}
}

// bareStarts forks and executes the same program with nothing around it.
func bareStarts(b *testing.B, n int) time.Duration {
	b.Helper()
	pids := make([]int, 0, n)
	begin := time.Now()
	for range n {
		pid, err := syscall.ForkExec("/bin/sleep", []string{"/bin/sleep", "10000"},
			&syscall.ProcAttr{Env: []string{"PATH=/bin"}, Files: []uintptr{0, 1, 2}})
		if err != nil {
			b.Fatal(err)
		}
		pids = append(pids, pid)
	}
	took := time.Since(begin)
	for _, pid := range pids {
		unix.Kill(pid, unix.SIGKILL)
		unix.Wait4(pid, nil, 0, nil)
	}
	return took
}

func cpuTicks(b *testing.B, pid int) int {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

func memory(b *testing.B, pid int) (pss, threads float64) {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for l := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(l, "Pss:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			pss = kb / 1024
		}
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		b.Fatal(err)
	}
	return pss, float64(len(tasks))
}

// BenchmarkRestart kills one of 1,000 processes and waits for its successor.
func BenchmarkRestart(b *testing.B) {
	const n = 1000
	c, _, _ := benchDaemon(b)
	if err := c.Declare(b.Context(), pausers(n), nil); err != nil {
		b.Fatal(err)
	}
	awaitRunning(b, c, n)
	table, err := c.Table(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	started := make(chan spec.Event, 64)
	go c.Events(b.Context(), table.Seq, func(e spec.Event) error {
		if e.Type == spec.EventStarted {
			started <- e
		}
		return nil
	})
	var times []time.Duration
	i := 0
	for b.Loop() {
		victim := table.Instances[i%n]
		begin := time.Now()
		if err := unix.Kill(victim.PID, unix.SIGKILL); err != nil {
			b.Fatal(err)
		}
		e := <-started
		times = append(times, time.Since(begin))
		table.Instances[i%n].PID = e.Instance.PID
		i++
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkOutput lets one child write lines as fast as it can.
func BenchmarkOutput(b *testing.B) {
	const size = 200_000_000
	c, cmd, dir := benchDaemon(b)
	l := shell("chatty", "yes 'a line of output that is about as long as lines of output are, in the end' | head -c 200000000")
	l.Restart.Policy = spec.RestartNever
	l.Logs = spec.Logs{MaxSize: 10 << 20, Keep: 3}
	for b.Loop() {
		l.Epoch++
		ticks, begin := cpuTicks(b, cmd.Process.Pid), time.Now()
		if err := c.Declare(b.Context(), []spec.Launch{l}, nil); err != nil {
			b.Fatal(err)
		}
		for {
			table, err := c.Table(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			if in := table.Instances[0]; in.Epoch == l.Epoch && in.Phase == spec.PhaseCompleted {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		took := time.Since(begin)
		b.ReportMetric(size/1e6/took.Seconds(), "MB/s")
		b.ReportMetric(float64(cpuTicks(b, cmd.Process.Pid)-ticks)/100/took.Seconds(), "cores")
		out, err := exec.Command("du", "-sk", dir+"/logs").Output()
		if err != nil {
			b.Fatal(err)
		}
		kept, _ := strconv.ParseFloat(strings.Fields(string(out))[0], 64)
		b.ReportMetric(kept/1024, "MiB-kept")
	}
}
