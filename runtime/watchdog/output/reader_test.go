package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/synergymesh/meshrun/spec"
)

var web0 = spec.InstanceID{Job: "shop", Process: "web", Shard: 0}

// webDir returns the directory of web0 under a new root.
func webDir(t testing.TB) string {
	t.Helper()
	dir := Dir(t.TempDir(), web0)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// streamOne is Stream of the instance web0 that has its output in dir.
func streamOne(ctx context.Context, dir string, q spec.LogQuery, yield func(spec.LogLine) error) error {
	q.Job, q.Process, q.Shard = web0.Job, web0.Process, web0.Shard
	return Stream(ctx, filepath.Join(dir, "../../.."), q, yield)
}

// read returns what Stream yields, as "stream text", with "+" after a partial one.
func read(t testing.TB, dir string, q spec.LogQuery) []string {
	t.Helper()
	var got []string
	err := streamOne(t.Context(), dir, q, func(l spec.LogLine) error {
		text := l.Stream + " " + l.Text
		if l.Partial {
			text += "+"
		}
		got = append(got, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func equal(t testing.TB, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %d lines %q\nwant %d lines %q", len(got), got, len(want), want)
	}
}

// splitLines says what lines some output is made of.
func splitLines(b []byte) []string {
	if len(b) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func TestAnyChunkingOfAnyBytesReadsBackAsItsLines(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir := webDir(t)
		w := NewWriter(dir, logs(4<<10, 1<<20))
		var fed [len(streams)][]byte
		chunk := rapid.Custom(func(rt *rapid.T) []byte {
			b := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n\r\x00\xffPF Z")), 0, 60).Draw(rt, "bytes")
			return bytes.Repeat(b, rapid.SampledFrom([]int{1, 1, 1, 2, 40}).Draw(rt, "times"))
		})
		now := t0
		for range rapid.IntRange(0, 20).Draw(rt, "chunks") {
			s := rapid.IntRange(0, 1).Draw(rt, "stream")
			b := chunk.Draw(rt, "chunk")
			now = now.Add(time.Duration(rapid.IntRange(-5, 1000).Draw(rt, "pause")))
			if n := w.Write(now, streams[s], b); n != 0 {
				rt.Fatalf("dropped %d bytes: %v", n, w.Err())
			}
			fed[s] = append(fed[s], b...)
			if rapid.IntRange(0, 9).Draw(rt, "crash") == 0 {
				w.Close()
				w = NewWriter(dir, logs(4<<10, 1<<20))
			}
		}
		w.Flush(now)
		w.Close()
		var got [len(streams)][]string
		err := streamOne(t.Context(), dir, spec.LogQuery{}, func(l spec.LogLine) error {
			if l.Partial || l.Stream == Notice {
				rt.Fatalf("unexpected %+v", l)
			}
			s := streamIndex(l.Stream)
			got[s] = append(got[s], l.Text)
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		for s := range streams {
			if want := splitLines(fed[s]); !slices.Equal(got[s], want) {
				rt.Fatalf("%s: got %d lines %q, want %d lines %q", streams[s], len(got[s]), got[s], len(want), want)
			}
		}
	})
}

// write fills a directory with numbered lines, a second apart, in small files.
func write(t testing.TB, dir string, n int) {
	t.Helper()
	w := NewWriter(dir, logs(4<<10, 1000))
	defer w.Close()
	for i := range n {
		s := streams[min(i%10, 1)^1]
		w.Write(t0.Add(time.Duration(i)*time.Second), s, fmt.Appendf(nil, "line %d\n", i))
	}
}

func numbered(from, to int) (want []string) {
	for i := from; i < to; i++ {
		want = append(want, fmt.Sprintf("%s line %d", streams[min(i%10, 1)^1], i))
	}
	return want
}

func TestReadSelects(t *testing.T) {
	dir := webDir(t)
	write(t, dir, 1000)
	all := numbered(0, 1000)
	if files, _ := listFiles(dir); len(files) < 5 {
		t.Fatalf("only %d files: the test says nothing", len(files))
	}
	equal(t, read(t, dir, spec.LogQuery{}), all)
	for _, last := range []int{1, 2, 77, 500, 999, 1000, 5000} {
		equal(t, read(t, dir, spec.LogQuery{Last: last}), all[max(0, 1000-last):])
	}
	for _, from := range []int{0, 1, 400, 999, 1000} {
		since := t0.Add(time.Duration(from) * time.Second)
		equal(t, read(t, dir, spec.LogQuery{Since: since}), all[from:])
		equal(t, read(t, dir, spec.LogQuery{Since: since, Last: 3}), all[min(1000, max(from, 997)):])
	}
	equal(t, read(t, dir, spec.LogQuery{Grep: "line 99[0-9]$"}), all[990:])
	equal(t, read(t, dir, spec.LogQuery{Grep: "line 1?7$", Last: 1}), all[17:18])
	err := streamOne(t.Context(), dir, spec.LogQuery{Grep: "("}, nil)
	if err == nil {
		t.Error("a broken expression is accepted")
	}
	equal(t, read(t, filepath.Join(dir, "missing"), spec.LogQuery{Last: 5}), nil)
}

func TestReadFindsTheMomentInALargeFile(t *testing.T) {
	dir := webDir(t)
	w := NewWriter(dir, logs(64<<20, 1))
	text := strings.Repeat("x", 1000)
	for i := range 4000 {
		switch i {
		case 2000:
			w.Write(t0.Add(2000*time.Second), Stderr, []byte("be"))
		case 2200:
			w.Write(t0.Add(2200*time.Second), Stderr, []byte("gun\n"))
		}
		w.Write(t0.Add(time.Duration(i)*time.Second), Stdout, fmt.Appendf(nil, "%d %s\n", i, text))
	}
	w.Close()
	for _, from := range []int{0, 1, 1234, 3999} {
		got := read(t, dir, spec.LogQuery{Since: t0.Add(time.Duration(from) * time.Second)})
		if from < 2200 {
			got = slices.DeleteFunc(got, func(s string) bool { return s == "stderr begun" })
		}
		if len(got) != 4000-from || !strings.HasPrefix(got[0], fmt.Sprintf("stdout %d ", from)) {
			t.Errorf("since line %d: %d lines, first %.20q", from, len(got), got[0])
		}
	}
	for from := 2150; from < 2200; from++ {
		got := read(t, dir, spec.LogQuery{Since: t0.Add(time.Duration(from) * time.Second)})
		if !slices.Contains(got, "stderr begun") {
			t.Errorf("since line %d: a line that began earlier is cut", from)
		}
	}
	got := read(t, dir, spec.LogQuery{Last: 3})
	if len(got) != 3 || !strings.HasPrefix(got[0], "stdout 3997 ") {
		t.Errorf("last 3: %d lines", len(got))
	}
}

func TestLinesKeepTheirOrderThoughTheClockGoesBack(t *testing.T) {
	dir := webDir(t)
	w := NewWriter(dir, logs(4<<10, 100))
	var want []string
	for i := range 1000 {
		if i%300 == 0 {
			w.Close()
			w = NewWriter(dir, logs(4<<10, 100))
		}
		w.Write(t0.Add(-time.Duration(i)*time.Minute), Stdout, fmt.Appendf(nil, "%d\n", i))
		want = append(want, fmt.Sprintf("stdout %d", i))
	}
	w.Close()
	equal(t, read(t, dir, spec.LogQuery{}), want)
}

func TestLastJoinsTheWholeLine(t *testing.T) {
	dir := webDir(t)
	w := NewWriter(dir, logs(1<<20, 2))
	w.Write(t0, Stdout, []byte("old\n"))
	w.Write(t0, Stderr, []byte("a pro"))
	w.Write(t0, Stdout, []byte("between\n"))
	w.Write(t0, Stderr, []byte("mpt"))
	w.Write(t0, Stderr, []byte("\n"))
	long := strings.Repeat("0123456789", 10_000)
	w.Write(t0, Stdout, []byte(long+"\n"))
	w.Write(t0, Stdout, []byte("no end"))
	w.Close()
	equal(t, read(t, dir, spec.LogQuery{Last: 2}), []string{"stderr a prompt", "stdout " + long, "stdout no end+"})
	equal(t, read(t, dir, spec.LogQuery{Last: 1}), []string{"stdout " + long, "stdout no end+"})
	equal(t, read(t, dir, spec.LogQuery{Last: 1, Grep: "old|end"}), []string{"stdout old", "stdout no end+"})
}

func TestReadToleratesATornLine(t *testing.T) {
	dir := webDir(t)
	w := NewWriter(dir, logs(1<<20, 1))
	w.Write(t0, Stdout, []byte("whole\nsecond\n"))
	w.Close()
	path := filepath.Join(dir, currentName)
	all := content(t, path)
	for cut := range len(all) {
		if err := os.WriteFile(path, []byte(all[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, l := range read(t, dir, spec.LogQuery{}) {
			torn, isTorn := strings.CutSuffix(l, "+")
			if !strings.HasPrefix("stdout whole", l) && !strings.HasPrefix("stdout second", l) &&
				!(isTorn && (strings.HasPrefix("stdout whole", torn) || strings.HasPrefix("stdout second", torn))) {
				t.Fatalf("cut at %d: line %q", cut, l)
			}
		}
	}
}

func TestMergeOrdersByTime(t *testing.T) {
	root := t.TempDir()
	var want []string
	const n = 7
	for i := range n {
		id := spec.InstanceID{Job: "shop", Process: "web", Shard: i}
		w := NewWriter(Dir(root, id), logs(4<<10, 100))
		for k := range 100 {
			w.Write(t0.Add(time.Duration(k*n+i)*time.Second), Stdout, fmt.Appendf(nil, "%d\n", k*n+i))
		}
		w.Close()
	}
	for k := range 100 * n {
		want = append(want, fmt.Sprint(k))
	}
	var got []string
	err := Stream(t.Context(), root, spec.LogQuery{Job: "shop", Shard: -1}, func(l spec.LogLine) error {
		got = append(got, l.Text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, want)
	one, err := Select(root, spec.LogQuery{Job: "shop", Process: "web", Shard: 3})
	if err != nil || len(one) != 1 || one[0].ID.Shard != 3 {
		t.Errorf("Select of one shard: %v, %v", one, err)
	}
	if _, err := Select(root, spec.LogQuery{Job: "../x", Shard: -1}); err == nil {
		t.Error("a path is taken for a job's name")
	}
	stop := errors.New("enough")
	err = Stream(t.Context(), root, spec.LogQuery{Job: "shop", Shard: -1}, func(spec.LogLine) error { return stop })
	if !errors.Is(err, stop) {
		t.Errorf("yield's error came back as %v", err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Stream(canceled, root, spec.LogQuery{Job: "shop", Shard: -1}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled read returned %v", err)
	}
}

func FuzzReadGarbage(f *testing.F) {
	f.Add([]byte("2026-11-23T23:35:27.123456789Z stdout F x\n2026-11-23T23:35:27.123456789Z stderr P y"), 1)
	f.Add([]byte("9999-99-99T99:99:99.999999999Z stdout F x\n\n\n"), 0)
	f.Fuzz(func(t *testing.T, b []byte, last int) {
		dir := webDir(t)
		cut := len(b) / 2
		if err := errors.Join(
			os.WriteFile(filepath.Join(dir, rotatedName(t0, 5)), b[:cut], 0o600),
			os.WriteFile(filepath.Join(dir, currentName), b[cut:], 0o600)); err != nil {
			t.Fatal(err)
		}
		text := 0
		for _, l := range read(t, dir, spec.LogQuery{Last: last % 100}) {
			text += len(strings.TrimSuffix(l, "+")) - len("stdout ")
		}
		if text > len(b) {
			t.Errorf("%d bytes of text out of %d", text, len(b))
		}
	})
}
