package output

import (
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// limitFiles lets no file of this process grow beyond n bytes, so that a write
// ends in its middle as on a full disk, until the returned function is called.
func limitFiles(t *testing.T, n uint64) (lift func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	set := func(l unix.Rlimit) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &l); err != nil {
			t.Fatal(err)
		}
	}
	set(unix.Rlimit{Cur: n, Max: old.Max})
	return func() { set(old) }
}

func TestADiskThatFillsInTheMiddleOfAWriteKeepsWholeLines(t *testing.T) {
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	const first, chunk, after = "be", "fore\none\ntwo\n\nthree\nunfinished", " and its end\nlast\n"
	for room := range uint64(5*headerLen + len(chunk) + 8) {
		dir := webDir(t)
		w := NewWriter(dir, logs(1<<20, 1))
		w.Write(t0, Stdout, []byte(first))
		before, _ := os.Stat(filepath.Join(dir, currentName))
		lift := limitFiles(t, uint64(before.Size())+room)
		dropped := w.Write(t0, Stdout, []byte(chunk))
		lift()
		if n := w.Write(t0, Stdout, []byte(after)); n != 0 {
			t.Fatalf("room %d: dropped %d bytes with room again", room, n)
		}
		w.Flush(t0)
		w.Close()
		got := read(t, dir, spec.LogQuery{})
		kept := first + chunk[:len(chunk)-dropped]
		want := splitLines([]byte(kept + after))
		if dropped > 0 {
			want = splitLines([]byte(strings.TrimSuffix(kept, "\n") + "\n" + after))
		}
		for i := range want {
			want[i] = "stdout " + want[i]
		}
		equal(t, got, want)
		if t.Failed() {
			t.Fatalf("room for %d bytes, dropped %d", room, dropped)
		}
	}
}
