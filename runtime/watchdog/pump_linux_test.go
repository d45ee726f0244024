package watchdog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// pipes are the pipes of an instance, as the kernel hands them to the pump.
func pipes(t *testing.T, dir string) (out, err int) {
	t.Helper()
	out, oerr := openFIFO(filepath.Join(dir, "x.out"))
	err, eerr := openFIFO(filepath.Join(dir, "x.err"))
	if oerr != nil || eerr != nil {
		t.Fatal(oerr, eerr)
	}
	return out, err
}

func openPump(t *testing.T, dir string) *pump {
	t.Helper()
	p, err := newPump(filepath.Join(dir, "logs"), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// logged waits until the log has a text and returns it.
func logged(t *testing.T, dir, text string) string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		b, _ := os.ReadFile(filepath.Join(dir, "logs", "test", "p", "0", "current.log"))
		if strings.Contains(string(b), text) {
			return string(b)
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in:\n%s", text, b)
		}
	}
}

func TestOutputSurvivesItsReader(t *testing.T) {
	id := spec.InstanceID{Job: "test", Process: "p"}
	for name, noted := range map[string]bool{"killed before the log": false, "killed after the log": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			out, err := pipes(t, dir)
			keeper, kerr := openFIFO(filepath.Join(dir, "x.out"))
			if kerr != nil {
				t.Fatal(kerr)
			}
			defer unix.Close(keeper)
			first := openPump(t, dir)
			if err := first.add(id, out, err, spec.Logs{}); err != nil {
				t.Fatal(err)
			}
			unix.Write(keeper, []byte("one\n"))
			st := first.sources[id].streams[0]
			now := time.Now()
			first.intent.begin(st, []byte("one\n"), now)
			if noted { // all of move but the taking out
				first.sources[id].writer.Write(now, st.name, []byte("one\n"))
			}
			first.close()
			unix.Write(keeper, []byte("two\n"))

			second := openPump(t, dir)
			out, err = pipes(t, dir)
			if err := second.add(id, out, err, spec.Logs{}); err != nil {
				t.Fatal(err)
			}
			second.run()
			text := logged(t, dir, "two\n")
			second.close()
			if strings.Count(text, "F one\n") != 1 || strings.Count(text, "F two\n") != 1 {
				t.Errorf("the log is\n%s", text)
			}
		})
	}
}

func TestFullDiskDropsOutputAndBlocksNobody(t *testing.T) {
	id := spec.InstanceID{Job: "test", Process: "p"}
	dir := t.TempDir()
	// A file where the directory should be is as good as a full disk.
	if err := os.WriteFile(filepath.Join(dir, "logs"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := openPump(t, dir)
	out, err := pipes(t, dir)
	if err := p.add(id, out, err, spec.Logs{}); err != nil {
		t.Fatal(err)
	}
	p.run()
	defer p.close()
	w, oerr := unix.Open(filepath.Join(dir, "x.out"), unix.O_WRONLY, 0)
	if oerr != nil {
		t.Fatal(oerr)
	}
	defer unix.Close(w)
	const total = 1 << 20 // more than the pipe holds: a blocked pump would block this
	chunk := make([]byte, 4096)
	for range total / len(chunk) {
		if _, err := unix.Write(w, chunk); err != nil {
			t.Fatal(err)
		}
	}
	var lost uint64
	for deadline := time.Now().Add(patience); lost < total && time.Now().Before(deadline); {
		select {
		case <-p.dropped:
			lost += p.takeDropped()[id]
		case <-time.After(time.Second):
		}
	}
	if lost != total {
		t.Errorf("%d bytes are counted as lost, want %d", lost, total)
	}
}
