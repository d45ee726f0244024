package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// follower collects what a followed read yields.
type follower struct {
	t     *testing.T
	lines chan spec.LogLine
	stop  func()
}

// follow starts run, which is one of Stream, in the background.
func follow(t *testing.T, run func(context.Context, func(spec.LogLine) error) error) *follower {
	t.Helper()
	f := &follower{t: t, lines: make(chan spec.LogLine)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- run(ctx, func(l spec.LogLine) error {
			select {
			case f.lines <- l:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("follow ended with %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// next returns the next line.
func (f *follower) next() spec.LogLine {
	f.t.Helper()
	select {
	case l := <-f.lines:
		return l
	case <-time.After(time.Minute):
		f.t.Fatal("no line came")
		return spec.LogLine{}
	}
}

func (f *follower) expect(texts ...string) {
	f.t.Helper()
	for _, want := range texts {
		if got := f.next(); got.Text != want {
			f.t.Fatalf("got %q, want %q", got.Text, want)
		}
	}
}

func TestFollowSeesLateCreationAndUnfinishedLines(t *testing.T) {
	dir := Dir(filepath.Join(t.TempDir(), "not", "there"), web0)
	f := follow(t, func(ctx context.Context, yield func(spec.LogLine) error) error {
		return streamOne(ctx, dir, spec.LogQuery{Follow: true, Last: 10}, yield)
	})
	w := NewWriter(dir, logs(1<<20, 1))
	w.Write(t0, Stdout, []byte("one\ntw"))
	f.expect("one")
	w.Write(t0, Stderr, []byte("err\n"))
	f.expect("err")
	w.Close()
	w = NewWriter(dir, logs(1<<20, 1))
	w.Write(t0, Stdout, []byte("o\n"))
	f.expect("two")
	w.Close()
	if err := os.RemoveAll(filepath.Dir(dir)); err != nil {
		t.Fatal(err)
	}
	w = NewWriter(dir, logs(1<<20, 1))
	w.Write(t0, Stdout, []byte("after everything was removed\n"))
	f.expect("after everything was removed")
	w.Close()
}

func TestFollowBeginsWithWhatIsAskedFor(t *testing.T) {
	dir := webDir(t)
	write(t, dir, 1000)
	f := follow(t, func(ctx context.Context, yield func(spec.LogLine) error) error {
		return streamOne(ctx, dir, spec.LogQuery{Follow: true, Last: 2, Grep: "9"}, yield)
	})
	f.expect("line 998", "line 999")
	w := NewWriter(dir, logs(4<<10, 1000))
	w.Write(t0, Stdout, []byte("line 1000\nline 1009\n"))
	f.expect("line 1009")
	w.Close()
}

func TestFollowLosesAndDoublesNothingAcrossRotations(t *testing.T) {
	dir := webDir(t)
	f := follow(t, func(ctx context.Context, yield func(spec.LogLine) error) error {
		return streamOne(ctx, dir, spec.LogQuery{Follow: true}, yield)
	})
	const n = 20_000
	var wg sync.WaitGroup
	wg.Go(func() {
		w := NewWriter(dir, logs(64<<10, 1000))
		defer w.Close()
		for i := range n {
			w.Write(t0.Add(time.Duration(i)), streams[i&1], fmt.Appendf(nil, "%d\n", i))
		}
	})
	for i := range n {
		f.expect(fmt.Sprint(i))
	}
	wg.Wait()
}

func TestFollowCountsWhatRotationTookAway(t *testing.T) {
	dir := webDir(t)
	w := NewWriter(dir, logs(4<<10, 2))
	w.Write(t0, Stdout, []byte("first\n"))
	f := follow(t, func(ctx context.Context, yield func(spec.LogLine) error) error {
		return streamOne(ctx, dir, spec.LogQuery{Follow: true}, yield)
	})
	f.expect("first")
	w.Write(t0, Stdout, []byte("second\n")) // its reader stands still now
	line := bytes.Repeat([]byte("x"), 59)
	const n = 1000
	for range n {
		w.Write(t0, Stdout, append(line, '\n'))
	}
	w.Write(t0, Stdout, []byte("last\n"))
	w.Close()
	read, lost := int64(0), int64(0)
	for {
		l := f.next()
		if l.Stream == Notice {
			var gap int64
			if _, err := fmt.Sscanf(l.Text, "[%d bytes", &gap); err != nil {
				t.Fatalf("%q: %v", l.Text, err)
			}
			lost += gap
			continue
		}
		read += int64(headerLen + len(l.Text) + 1)
		if l.Text == "last" {
			break
		}
	}
	total := int64(headerLen+len("second\n")) + n*int64(headerLen+60) + int64(headerLen+len("last\n"))
	if lost == 0 || read+lost != total {
		t.Errorf("read %d + lost %d bytes, written %d", read, lost, total)
	}
}

func TestStreamTakesUpNewInstances(t *testing.T) {
	root := filepath.Join(t.TempDir(), "logs")
	f := follow(t, func(ctx context.Context, yield func(spec.LogLine) error) error {
		return Stream(ctx, root, spec.LogQuery{Job: "shop", Shard: -1, Follow: true}, yield)
	})
	for i, name := range []string{"web", "web", "db", "web"} {
		id := spec.InstanceID{Job: "shop", Process: name, Shard: i}
		w := NewWriter(Dir(root, id), logs(1<<20, 1))
		w.Write(t0, Stdout, fmt.Appendf(nil, "hello from %s\n", id))
		w.Close()
		if l := f.next(); l.ID != id || l.Text != "hello from "+id.String() {
			t.Fatalf("got %+v", l)
		}
	}
	other := NewWriter(Dir(root, spec.InstanceID{Job: "other", Process: "x"}), logs(1<<20, 1))
	other.Write(t0, Stdout, []byte("not asked for\n"))
	other.Close()
	again := NewWriter(Dir(root, spec.InstanceID{Job: "shop", Process: "web", Shard: 0}), logs(1<<20, 1))
	again.Write(t0, Stdout, []byte("again\n"))
	again.Close()
	f.expect("again")
}

func TestFollowedInstancesAreMergedByTime(t *testing.T) {
	root := t.TempDir()
	var writers []*Writer
	for i := range 2 {
		id := spec.InstanceID{Job: "shop", Process: "web", Shard: i}
		w := NewWriter(Dir(root, id), logs(1<<20, 1))
		w.Write(t0, Stdout, []byte("begin\n"))
		writers = append(writers, w)
	}
	f := follow(t, func(ctx context.Context, yield func(spec.LogLine) error) error {
		return Stream(ctx, root, spec.LogQuery{Job: "shop", Shard: -1, Follow: true}, yield)
	})
	f.expect("begin", "begin")
	// Both are written within the window, the later one first.
	writers[1].Write(t0.Add(2*time.Second), Stdout, []byte("later\n"))
	writers[0].Write(t0.Add(1*time.Second), Stdout, []byte("earlier\n"))
	f.expect("earlier", "later")
	for _, w := range writers {
		w.Close()
	}
}

func TestAFullDiskDropsCountsAndResumes(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("no /dev/full here")
	}
	dir := webDir(t)
	path := filepath.Join(dir, currentName)
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(dir, logs(1<<20, 1))
	if n := w.Write(t0, Stdout, []byte("lost\nhal")); n != 8 {
		t.Errorf("dropped %d bytes, want 8", n)
	}
	if w.Err() == nil || !strings.Contains(w.Err().Error(), "no space left") {
		t.Errorf("Err: %v", w.Err())
	}
	w.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if n := w.Write(t0, Stdout, []byte("f\nkept\n")); n != 0 {
		t.Errorf("dropped %d bytes after there was room", n)
	}
	w.Close()
	equal(t, read(t, dir, spec.LogQuery{}), []string{"stdout f", "stdout kept"})
}

func BenchmarkRead100ByteLines(b *testing.B) {
	dir := webDir(b)
	w := NewWriter(dir, logs(64<<20, 1))
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 655)
	for range 400 {
		w.Write(t0, Stdout, chunk)
	}
	w.Close()
	b.SetBytes(int64(400 * len(chunk)))
	for b.Loop() {
		n := 0
		if err := streamOne(b.Context(), dir, spec.LogQuery{}, func(spec.LogLine) error { n++; return nil }); err != nil || n != 400*655 {
			b.Fatal(n, err)
		}
	}
}
