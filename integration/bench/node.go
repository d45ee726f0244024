package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// bench holds the directory of one measurement and the node under test.
type bench struct {
	dir, binary string
	n           int
	node        *exec.Cmd // the running node, if any
	watchdog    int
	agent       int

	watcher  *exec.Cmd // meshrun up, which watches the job files
	watching bool
}

const perFile = 100 // processes in one job file

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) data() string { return b.path("data") }

// monotonic is CLOCK_MONOTONIC, as the C programs note it.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err) // cannot happen: the clock exists on every Linux
	}
	return t.Nano()
}

// mark is what one process wrote when it started.
type mark struct {
	Nanos      int64
	Index, PID int32
}

func (b *bench) marks() ([]mark, error) {
	raw, err := os.ReadFile(b.path("marks"))
	if err != nil {
		return nil, err
	}
	marks := make([]mark, len(raw)/16)
	return marks, binary.Read(bytes.NewReader(raw[:len(marks)*16]), binary.LittleEndian, marks)
}

// waitMarks waits until at least n starts have been noted.
func (b *bench) waitMarks(n int) ([]mark, error) {
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if info, err := os.Stat(b.path("marks")); err == nil && info.Size() >= int64(n)*16 {
			return b.marks()
		}
	}
	return nil, fmt.Errorf("wait for %d starts: %w", n, errTimeout)
}

func (b *bench) clearMarks() error { return os.WriteFile(b.path("marks"), nil, 0o600) }

// startBare runs the bare loop and returns the time at which it began.
func (b *bench) startBare() (*exec.Cmd, int64, error) {
	if err := b.clearMarks(); err != nil {
		return nil, 0, err
	}
	cmd := exec.Command(b.path("bare"), b.path("mark"), b.path("marks"), strconv.Itoa(b.n))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := cmd.Start(); err != nil {
		return nil, 0, err
	}
	var began int64
	if _, err := fmt.Fscan(out, &began); err != nil {
		return nil, 0, err
	}
	_, err = b.waitMarks(b.n)
	return cmd, began, err
}

func stopBare(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	_ = cmd.Wait()
}

func last(marks []mark) int64 {
	var latest int64
	for _, m := range marks {
		latest = max(latest, m.Nanos)
	}
	return latest
}

func (b *bench) bareStart() (time.Duration, error) {
	cmd, began, err := b.startBare()
	if err != nil {
		return 0, err
	}
	defer stopBare(cmd)
	marks, err := b.marks()
	return time.Duration(last(marks) - began), err
}

// writeJobs writes job files of perFile processes each.
func (b *bench) writeJobs() error {
	if err := os.MkdirAll(b.path("jobs"), 0o755); err != nil {
		return err
	}
	for first := 0; first < b.n; first += perFile {
		if err := b.writeJob(first/perFile, -1, ""); err != nil {
			return err
		}
	}
	return nil
}

// writeJob writes one job file, by rename; the process with the given index,
// if any, gets the note in its environment.
func (b *bench) writeJob(file, index int, note string) error {
	var text strings.Builder
	fmt.Fprintf(&text, "job \"bench-%d\" {\n", file)
	for i := file * perFile; i < min((file+1)*perFile, b.n); i++ {
		fmt.Fprintf(&text, "  process \"p%d\" {\n    command = [%q, %q, \"%d\"]\n", i, b.path("mark"), b.path("marks"), i)
		if i == index {
			fmt.Fprintf(&text, "    env = { NOTE = %q }\n", note)
		}
		text.WriteString("    restart { delay = \"0s\" }\n  }\n")
	}
	text.WriteString("}\n")
	path := filepath.Join(b.path("jobs"), fmt.Sprintf("bench-%d.hcl", file))
	if err := os.WriteFile(path+"~", []byte(text.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(path+"~", path)
}

// meshrun runs a command of the binary under test.
func (b *bench) meshrun(args ...string) ([]byte, error) {
	cmd := exec.Command(b.binary, args...)
	cmd.Env = append(os.Environ(), "MESHRUN_DATA_DIR="+b.data())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("meshrun %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out, nil
}

// startNode starts an agent on an empty data directory and waits until it
// answers.
func (b *bench) startNode() error {
	log, err := os.Create(b.path("node.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	b.node = exec.Command(b.binary, "agent", "-data-dir", b.data())
	b.node.Stdout, b.node.Stderr = log, log
	if err := b.node.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := b.meshrun("status", "-json")
		if err == nil {
			return b.learnPIDs(out)
		}
		if time.Now().After(end) {
			text, _ := os.ReadFile(b.path("node.log"))
			return fmt.Errorf("start node: %w\n%s", err, text)
		}
	}
}

func (b *bench) learnPIDs(status []byte) error {
	var s struct {
		Agent struct {
			PID         int `json:"pid"`
			WatchdogPID int `json:"watchdog_pid"`
		} `json:"agent"`
	}
	if err := json.Unmarshal(status, &s); err != nil {
		return fmt.Errorf("read status: %w", err)
	}
	b.watchdog, b.agent = s.Agent.WatchdogPID, s.Agent.PID
	if b.watchdog == 0 || b.agent == 0 {
		return fmt.Errorf("read status: no pids in %s", status)
	}
	return nil
}

// stopNode ends the node and all that it runs, and removes its data.
func (b *bench) stopNode() error {
	b.stopWatcher()
	if b.node == nil {
		return nil
	}
	_ = b.node.Process.Signal(syscall.SIGTERM)
	_ = b.node.Wait()
	b.node = nil
	return os.RemoveAll(b.data())
}

func (b *bench) meshrunStart() (time.Duration, error) {
	if err := b.startNode(); err != nil {
		return 0, err
	}
	if err := b.writeJobs(); err != nil {
		return 0, err
	}
	if err := b.clearMarks(); err != nil {
		return 0, err
	}
	began := monotonic()
	if _, err := b.meshrun("apply", "-yes", b.path("jobs")); err != nil {
		return 0, err
	}
	marks, err := b.waitMarks(b.n)
	return time.Duration(last(marks) - began), err
}

// kills kills processes one at a time and returns how long each one's
// successor took.
func (b *bench) kills(count int) ([]time.Duration, error) {
	var took []time.Duration
	for i := range count {
		before, err := b.marks()
		if err != nil {
			return nil, err
		}
		victim := before[i*7919%b.n]
		for _, m := range before { // the latest process of that index
			if m.Index == victim.Index {
				victim = m
			}
		}
		began := monotonic()
		if err := syscall.Kill(int(victim.PID), syscall.SIGKILL); err != nil {
			return nil, fmt.Errorf("kill %d: %w", victim.PID, err)
		}
		after, err := b.waitMarks(len(before) + 1)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Duration(after[len(before)].Nanos-began))
	}
	return took, nil
}

func (b *bench) bareRecovery(count int) ([]time.Duration, error) {
	saved, err := b.marks()
	if err != nil {
		return nil, err
	}
	defer b.restoreMarks(saved)
	cmd, _, err := b.startBare()
	if err != nil {
		return nil, err
	}
	defer stopBare(cmd)
	return b.kills(count)
}

// restoreMarks puts the marks of the running node back.
func (b *bench) restoreMarks(marks []mark) {
	var buf bytes.Buffer
	_ = binary.Write(&buf, binary.LittleEndian, marks)
	_ = os.WriteFile(b.path("marks"), buf.Bytes(), 0o600)
}

func (b *bench) meshrunRecovery(count int) ([]time.Duration, error) { return b.kills(count) }
