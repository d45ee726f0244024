package integration

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// logLines returns the job's lines, as `meshrun logs -json` prints them.
func (n *node) logLines(args ...string) []spec.LogLine {
	n.t.Helper()
	var lines []spec.LogLine
	dec := json.NewDecoder(strings.NewReader(n.must(append([]string{"logs", "-json"}, args...)...)))
	for dec.More() {
		var line spec.LogLine
		if err := dec.Decode(&line); err != nil {
			n.t.Fatalf("read logs: %v", err)
		}
		lines = append(lines, line)
	}
	return lines
}

func TestLogsKeepTimeStreamAndOrder(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(`
job "talk" {
  process "p" {
    command = ["sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.05; done; printf 'no newline'; sleep 1000"]
  }
}
`)
	for _, last := range []string{"out 3", "err 3"} {
		eventually(t, patience, "all is written", func() error { return n.logged("talk", last) })
	}
	var out, errs []string
	var last time.Time
	for _, line := range n.logLines("talk/p/0") {
		if line.Time.Before(last) {
			t.Errorf("%q is out of order", line.Text)
		}
		last = line.Time
		switch line.Stream {
		case "stdout":
			out = append(out, line.Text)
		case "stderr":
			errs = append(errs, line.Text)
		}
	}
	if got := strings.Join(errs, ","); got != "err 1,err 2,err 3" {
		t.Errorf("stderr: %q", got)
	}
	if got := strings.Join(out, ","); !strings.HasPrefix(got, "out 1,out 2,out 3") {
		t.Errorf("stdout: %q", got)
	}
	if lines := n.logLines("-n", "1", "-grep", "out [12]", "talk"); len(lines) != 1 || lines[0].Text != "out 2" {
		t.Errorf("-n 1 -grep: %+v", lines)
	}
	if lines := n.logLines("-since", "1h", "talk"); len(lines) < 6 {
		t.Errorf("-since 1h: %d lines", len(lines))
	}
}

func TestLogsFollowThroughTheDeathOfTheWatchdog(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(n.workloadJob(`["-every", "5ms"]`, ""))
	n.waitPhase("load/w/0", spec.PhaseRunning)
	follow := exec.Command(meshrunBinary, "logs", "-f", "-json", "load")
	follow.Env = append(os.Environ(), "MESHRUN_DATA_DIR="+n.data)
	stdout, err := follow.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := follow.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = follow.Process.Kill()
		_ = follow.Wait()
	}()
	watchdog := n.status().Agent.WatchdogPID
	done := make(chan error, 1)
	go func() {
		scanner := bufio.NewScanner(stdout)
		for next := 1; next <= 400; next++ {
			if !scanner.Scan() {
				done <- fmt.Errorf("the stream ended before line %d", next)
				return
			}
			var line spec.LogLine
			if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
				done <- err
				return
			}
			if want := fmt.Sprintf("line %d", next); !strings.HasSuffix(line.Text, want) {
				done <- fmt.Errorf("got %q, want %q", line.Text, want)
				return
			}
			if next == 100 {
				_ = syscall.Kill(watchdog, syscall.SIGKILL) // if it is gone, the test shows less
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Errorf("400 lines did not arrive in %s", patience)
	}
}

func TestAChattyChildKeepsItsBoundAndIsNotHeldUp(t *testing.T) {
	n := newNode(t)
	n.start()
	n.apply(n.workloadJob(`["-lines", "200000", "-run", "1s"]`,
		"logs {\n max_size = \"256KiB\"\n keep = 2\n}\nrestart {\n policy = \"never\"\n}"))
	n.waitPhase("load/w/0", spec.PhaseCompleted)
	var size int64
	dir := n.data + "/logs/load/w/0"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 3*(256<<10)+(128<<10) {
		t.Errorf("the log has %d bytes, its bound is 3 × 256 KiB", size)
	}
	eventually(t, patience, "the last line is kept", func() error {
		lines := n.logLines("-n", "1", "load")
		if len(lines) != 1 || !strings.HasSuffix(lines[0].Text, "line 200000") {
			return fmt.Errorf("the last is %+v", lines)
		}
		return nil
	})
}
