package output

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

var t0 = time.Date(2026, 11, 23, 23, 35, 27, 123456789, time.UTC)

func logs(size spec.Size, keep int) spec.Logs { return spec.Logs{MaxSize: size, Keep: keep} }

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWriterFormat(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "job", "proc", "0")
	w := NewWriter(dir, logs(1<<20, 1))
	if _, err := os.Stat(dir); err == nil {
		t.Fatal("a silent writer made its directory")
	}
	w.Write(t0, Stdout, []byte("one\ntw"))
	w.Write(t0.Add(1), Stderr, []byte("err\n"))
	w.Write(t0.Add(2), Stdout, []byte("o\n\nend"))
	w.Flush(t0.Add(3))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	want := `2026-11-23T23:35:27.123456789Z stdout F one
2026-11-23T23:35:27.123456789Z stdout P tw
2026-11-23T23:35:27.123456790Z stderr F err
2026-11-23T23:35:27.123456791Z stdout F o
2026-11-23T23:35:27.123456791Z stdout F 
2026-11-23T23:35:27.123456791Z stdout P end
2026-11-23T23:35:27.123456792Z stdout F 
`
	if got := content(t, filepath.Join(dir, currentName)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWriterStaysWithinItsBound(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, logs(4<<10, 2))
	total := func() (sum int64, files int) {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			info, _ := e.Info()
			sum += info.Size()
		}
		return sum, len(entries)
	}
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 100)
	for i := range 50 {
		if n := w.Write(t0.Add(time.Duration(i)), Stdout, chunk); n != 0 {
			t.Fatalf("dropped %d bytes", n)
		}
		if sum, files := total(); sum > 3*4<<10 || files > 3 {
			t.Fatalf("%d bytes in %d files", sum, files)
		}
	}
	w.SetLimits(logs(4<<10, 0))
	if _, files := total(); files != 1 {
		t.Errorf("%d files remain with keep 0", files)
	}
}

func TestWriterRepairsATornLine(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, logs(1<<20, 1))
	w.Write(t0, Stdout, []byte("whole\nsecond\n"))
	w.Close()
	path := filepath.Join(dir, currentName)
	full := content(t, path)
	for cut := range len(full) {
		if err := os.WriteFile(path, []byte(full[:cut]), 0o600); err != nil {
			t.Fatal(err)
		}
		w := NewWriter(dir, logs(1<<20, 1))
		w.Write(t0, Stderr, []byte("next\n"))
		w.Close()
		if got := content(t, path); !strings.HasSuffix(got, "\n"+full[:stampLen]+" stderr F next\n") && cut > 0 {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

func TestWriterGoesOnInTheMiddleOfALine(t *testing.T) {
	dir := t.TempDir()
	w := NewWriter(dir, logs(1<<20, 1))
	w.Write(t0, Stdout, []byte("half"))
	w.Close()
	next := NewWriter(dir, logs(1<<20, 1))
	next.Flush(t0)
	next.Close()
	if got := content(t, filepath.Join(dir, currentName)); !strings.HasSuffix(got, " stdout F \n") {
		t.Errorf("the successor did not end the line: %q", got)
	}
}

func TestWriterCountsWhatItDropsAndResumes(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "logs")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(dir, logs(1<<20, 1))
	if n := w.Write(t0, Stdout, []byte("a\nbc\nd")); n != 6 {
		t.Errorf("dropped %d bytes, want 6", n)
	}
	if w.Err() == nil {
		t.Error("Err does not say why")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if n := w.Write(t0, Stdout, []byte("e\n")); n != 0 || w.Err() != nil {
		t.Errorf("after the repair: dropped %d, %v", n, w.Err())
	}
}

func BenchmarkWrite100ByteLines(b *testing.B) {
	w := NewWriter(b.TempDir(), logs(64<<20, 1))
	defer w.Close()
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 99)+"\n"), 655)
	b.SetBytes(int64(len(chunk)))
	for b.Loop() {
		w.Write(t0, Stdout, chunk)
	}
}
