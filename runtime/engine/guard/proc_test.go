package guard

import (
	"os"
	"testing"
	"time"
)

func TestALineOfAProcessIsRead(t *testing.T) {
	line := "7 (a) b (c) Z 1 2 3 0 -1 4194560 114 0 0 0 40 30 20 10 20 0 1 0 1234 9281536 5 18446744073709551615 1 1 0\n"
	p, err := parseStat([]byte(line), 4096)
	want := Process{Parent: 1, Group: 2, Session: 3, StartTicks: 1234, Zombie: true, CPU: time.Second, Memory: 5 * 4096}
	if err != nil || p != want {
		t.Errorf("read %+v, %v", p, err)
	}
	for _, line := range []string{"", "7 (x) S 1 2", "7 (x) S 1 2 3 0 -1 4194560 114 0 0 0 4x 30 20 10 20 0 1 0 1234 9281536 5"} {
		if p, err := parseStat([]byte(line), 4096); err == nil {
			t.Errorf("%q is read as %+v", line, p)
		}
	}
}

func TestThisProcessIsAmongAllProcesses(t *testing.T) {
	all, err := Processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.PID == os.Getpid() {
			if p.Parent != os.Getppid() || p.Memory == 0 || p.StartTicks == 0 || p.Zombie {
				t.Errorf("seen is %+v", p)
			}
			return
		}
	}
	t.Errorf("this process is not among %d", len(all))
}
