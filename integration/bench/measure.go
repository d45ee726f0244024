package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ticks is the CPU time that the processes have used, in clock ticks.
func ticks(pids []int) (int64, error) {
	var total int64
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The fields after the command's closing parenthesis; proc(5).
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[11:13] {
			n, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, err
			}
			total += n
		}
	}
	return total, nil
}

// memory returns a process's proportional set size in KiB and its threads.
func memory(pid int) (pss int64, threads int, err error) {
	for _, file := range []string{"smaps_rollup", "status"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return 0, 0, err
		}
		for line := range strings.Lines(string(text)) {
			_, _ = fmt.Sscanf(line, "Pss: %d kB", &pss)
			_, _ = fmt.Sscanf(line, "Threads: %d", &threads)
		}
	}
	return pss, threads, nil
}

// stable is the uptime after which a restart counts as recovered, by default,
// and some more: that is told for each of those that were killed.
const stable = 12 * time.Second

// settle waits until all that went before has come to its end, and the node
// has been quiet for two seconds.
func (b *bench) settle() error {
	time.Sleep(stable)
	pids := []int{b.watchdog, b.agent}
	for range 30 {
		before, err := ticks(pids)
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second)
		after, err := ticks(pids)
		if err != nil {
			return err
		}
		if after == before {
			return nil
		}
	}
	return errors.New("the node does not come to rest")
}

// editOne changes one process in its file and waits for it to be applied.
// It returns the time from the save to the new process running, and how many
// processes started anew.
func (b *bench) editOne(index int, note string) (time.Duration, int, error) {
	if err := b.watchJobs(); err != nil {
		return 0, 0, err
	}
	before, err := b.marks()
	if err != nil {
		return 0, 0, err
	}
	began := monotonic()
	if err := b.writeJob(index/perFile, index, note); err != nil {
		return 0, 0, err
	}
	after, err := b.waitMarks(len(before) + 1)
	if err != nil {
		return 0, 0, err
	}
	took := time.Duration(after[len(before)].Nanos - began)
	time.Sleep(500 * time.Millisecond) // time for a second one to show itself
	all, err := b.marks()
	if err != nil {
		return 0, 0, err
	}
	// Put the process back as it was, so that the next edit changes one only.
	if err := b.writeJob(index/perFile, -1, ""); err != nil {
		return 0, 0, err
	}
	if _, err := b.waitMarks(len(all) + 1); err != nil {
		return 0, 0, err
	}
	return took, len(all) - len(before), nil
}

// watchJobs starts the agent that watches the job files, once: the node's
// processes go on, for an agent's restart touches none of them.
func (b *bench) watchJobs() error {
	if b.watching {
		return nil
	}
	b.watching = true
	b.watcher = exec.Command(b.binary, "up", b.path("jobs"))
	b.watcher.Env = append(os.Environ(), "MESHRUN_DATA_DIR="+b.data())
	out, err := b.watcher.StdoutPipe()
	if err != nil {
		return err
	}
	b.watcher.Stderr = b.watcher.Stdout
	if err := b.watcher.Start(); err != nil {
		return err
	}
	ready := make(chan struct{})
	go func() {
		scanner := bufio.NewScanner(out)
		announced := false
		for scanner.Scan() {
			if !announced && strings.Contains(scanner.Text(), "watching") {
				announced = true
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
		return nil
	case <-time.After(20 * time.Second):
		return fmt.Errorf("wait for meshrun up: %w", errTimeout)
	}
}

// chatToFile times a child that writes its lines to a file.
func (b *bench) chatToFile(lines int) (time.Duration, error) {
	out, err := os.Create(b.path("chat.out"))
	if err != nil {
		return 0, err
	}
	defer out.Close()
	cmd := exec.Command(b.path("chatter"), strconv.Itoa(lines))
	cmd.Stdout = out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	if err != nil {
		return 0, err
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return parseTook(line)
}

func parseTook(line string) (time.Duration, error) {
	var took, cpu int64
	at := strings.Index(line, "took ")
	if at < 0 {
		return 0, fmt.Errorf("no timing in %q", line)
	}
	_, err := fmt.Sscanf(line[at:], "took %d ns, cpu %d ns", &took, &cpu)
	return time.Duration(took), err
}

// chatToMeshrun times the same child under meshrun, with the watchdog's CPU
// time for it and the number of lines that the log holds in the end.
func (b *bench) chatToMeshrun(lines int) (took, cpu time.Duration, kept int, err error) {
	dir := b.path("chat")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, 0, 0, err
	}
	job := fmt.Sprintf("job \"chat\" {\n  process \"chat\" {\n    command = [%q, \"%d\"]\n    logs {\n      max_size = \"2GiB\"\n      keep = 1\n    }\n  }\n}\n",
		b.path("chatter"), lines)
	if err := os.WriteFile(filepath.Join(dir, "chat.hcl"), []byte(job), 0o644); err != nil {
		return 0, 0, 0, err
	}
	before, err := ticks([]int{b.watchdog})
	if err != nil {
		return 0, 0, 0, err
	}
	if _, err := b.meshrun("apply", "-yes", dir); err != nil {
		return 0, 0, 0, err
	}
	log := filepath.Join(b.data(), "logs", "chat", "chat", "0", "current.log")
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if took, err = tookFrom(log); err == nil {
			break
		}
	}
	if err != nil {
		return 0, 0, 0, err
	}
	after, err := ticks([]int{b.watchdog})
	if err != nil {
		return 0, 0, 0, err
	}
	kept, err = countLines(log, " stdout F xxx")
	return took, time.Duration(after-before) * time.Second / 100, kept, err
}

// tookFrom finds the child's own timing at the end of its log.
func tookFrom(log string) (time.Duration, error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	tail := make([]byte, min(info.Size(), 1<<20))
	if _, err := f.ReadAt(tail, info.Size()-int64(len(tail))); err != nil {
		return 0, err
	}
	return parseTook(string(tail))
}

func countLines(log, with string) (int, error) {
	f, err := os.Open(log)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n := 0
	scanner := bufio.NewScanner(f)
	scanner.Buffer(make([]byte, 1<<20), 1<<20)
	for scanner.Scan() {
		if bytes.Contains(scanner.Bytes(), []byte(with)) {
			n++
		}
	}
	return n, scanner.Err()
}

// stopWatcher ends `meshrun up` and waits for it.
func (b *bench) stopWatcher() {
	if b.watcher == nil {
		return
	}
	_ = b.watcher.Process.Signal(syscall.SIGTERM)
	_ = b.watcher.Wait()
	b.watcher = nil
}
