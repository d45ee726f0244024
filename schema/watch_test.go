package schema

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/go-hclog"
)

// patience bounds every wait of the tests for the kernel's notifications.
const patience = time.Minute

// watched runs Watch in the background and keeps what it tells.
type watched struct {
	t *testing.T
	// mu guards results.
	mu      sync.Mutex
	results []result
	changed chan struct{} // one element when there is something new
}

type result struct {
	jobs  []Loaded
	diags Diagnostics
}

// startWatch watches paths until the test ends and waits for the first result.
func startWatch(t *testing.T, opts Options, paths ...string) *watched {
	t.Helper()
	return startWatchAs(t, WatchOptions{}, opts, paths...)
}

func startWatchAs(t *testing.T, how WatchOptions, opts Options, paths ...string) *watched {
	t.Helper()
	w := &watched{t: t, changed: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- Watch(ctx, paths, opts, how, func(cfg *Config, diags Diagnostics) {
			w.mu.Lock()
			w.results = append(w.results, result{cfg.Jobs, diags})
			w.mu.Unlock()
			select {
			case w.changed <- struct{}{}:
			default:
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Watch returned %v", err)
			}
		case <-time.After(patience):
			t.Error("Watch did not stop")
		}
	})
	w.until("the first result", func(result) bool { return true })
	return w
}

// until waits until the latest result is as wanted.
func (w *watched) until(what string, ok func(result) bool) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		var last result
		n := len(w.results)
		if n > 0 {
			last = w.results[n-1]
		}
		w.mu.Unlock()
		if n > 0 && ok(last) {
			return
		}
		select {
		case <-w.changed:
		case <-deadline:
			w.t.Fatalf("never saw %s; last: %+v %s", what, last.jobs, text(last.diags))
		}
	}
}

func (w *watched) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.results)
}

// runs waits until there is one job whose process has the given argument.
func (w *watched) runs(arg string) {
	w.t.Helper()
	w.until("a process with "+arg, func(r result) bool {
		return len(r.jobs) == 1 && r.jobs[0].Job.Processes[0].Command[1].Text() == arg
	})
}

func jobWith(arg string) string {
	return fmt.Sprintf("job \"web\" {\n  process \"server\" {\n    command = [\"echo\", %q]\n  }\n}\n", arg)
}

// replace puts a file in place at once: nobody reads it while it is written.
func replace(t *testing.T, path, src string) {
	t.Helper()
	put(t, path+".new", src)
	must(t, os.Rename(path+".new", path))
}

func put(t *testing.T, path, src string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchSeesHowEditorsSave(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("0"))
	w := startWatch(t, sealed, dir)
	w.runs("0")

	put(t, file, jobWith("in place"))
	w.runs("in place")

	put(t, file+".tmp", jobWith("renamed over"))
	must(t, os.Rename(file+".tmp", file))
	w.runs("renamed over")

	must(t, os.Rename(file, file+"~"))
	put(t, file, jobWith("backup first"))
	w.runs("backup first")

	must(t, os.Remove(file))
	w.until("no job", func(r result) bool { return len(r.jobs) == 0 && len(r.diags) == 1 })
	put(t, file, jobWith("made again"))
	w.runs("made again")
}

func TestWatchOfOneFileSeesItReplaced(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("0"))
	w := startWatch(t, sealed, file)
	put(t, file+".tmp", jobWith("1"))
	must(t, os.Rename(file+".tmp", file))
	w.runs("1")
	must(t, os.Remove(file))
	w.until("an error", func(r result) bool { return r.diags.HasErrors() })
	put(t, file, jobWith("2"))
	w.runs("2")
}

func TestWatchTellsOfBrokenFilesAndOfTheirRepair(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("good"))
	w := startWatch(t, sealed, dir)
	put(t, file, "job \"web\" {")
	w.until("an error and no jobs", func(r result) bool { return r.diags.HasErrors() && r.jobs == nil })
	put(t, file, jobWith("mended"))
	w.runs("mended")
}

// A file that was emptied is one that is being written, or was lost.
func TestWatchTakesAnEmptyFileForABrokenOne(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("full"))
	w := startWatch(t, sealed, dir)
	put(t, file, "\n")
	w.until("an error that says what to do", func(r result) bool {
		return r.diags.HasErrors() && strings.Contains(text(r.diags), "to remove them, delete the file")
	})
	put(t, file, "# nothing to run yet\n")
	w.until("no job, on purpose", func(r result) bool { return len(r.jobs) == 0 && len(r.diags) == 0 })
}

func TestWatchGivesAFileAMomentToComeBack(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("same"))
	w := startWatchAs(t, WatchOptions{Absence: time.Hour}, sealed, dir)
	usual := startWatch(t, sealed, dir)
	before := w.count()
	must(t, os.Remove(file))
	back := make(chan struct{})
	time.AfterFunc(5*DefaultQuiet, func() { defer close(back); replace(t, file, jobWith("other")) })
	w.runs("other")
	<-back
	if got := w.count(); got != before+1 {
		t.Errorf("%d results, want %d: the file's absence was told, which removes its jobs", got, before+1)
	}
	must(t, os.Remove(file))
	usual.until("that it is gone for good", func(r result) bool { return len(r.jobs) == 0 })
}

func TestWatchSaysNothingWhenNothingChanged(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("same"))
	w := startWatch(t, sealed, dir)
	before := w.count()
	for range 3 {
		replace(t, file, jobWith("same"))
		put(t, filepath.Join(dir, "notes.txt"), "not a job")
		put(t, filepath.Join(dir, ".web.hcl.swp"), "not a job")
	}
	// The change of another file shows that the ones before have been seen.
	replace(t, file, jobWith("other"))
	w.runs("other")
	if got := w.count(); got != before+1 {
		t.Errorf("%d results, want %d", got, before+1)
	}
}

func TestWatchSeesDirectoriesGoAndComeBack(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "a", "jobs")
	must(t, os.MkdirAll(dir, 0o755))
	put(t, filepath.Join(dir, "web.hcl"), jobWith("first"))
	w := startWatch(t, sealed, dir)
	w.runs("first")

	must(t, os.RemoveAll(filepath.Join(root, "a")))
	w.until("an error", func(r result) bool { return r.diags.HasErrors() })
	must(t, os.MkdirAll(dir, 0o755))
	put(t, filepath.Join(dir, "web.hcl"), jobWith("second"))
	w.runs("second")

	other := filepath.Join(root, "a", "other")
	must(t, os.MkdirAll(other, 0o755))
	put(t, filepath.Join(other, "web.hcl"), jobWith("swapped"))
	must(t, os.Rename(dir, dir+".old"), os.Rename(other, dir))
	w.runs("swapped")
	put(t, filepath.Join(dir, "web.hcl"), jobWith("edited after the swap"))
	w.runs("edited after the swap")
}

func TestWatchSeesMountedDirectoriesSwapTheirLink(t *testing.T) {
	dir := t.TempDir()
	for _, version := range []string{"v1", "v2"} {
		must(t, os.Mkdir(filepath.Join(dir, ".."+version), 0o755))
		put(t, filepath.Join(dir, ".."+version, "web.hcl"), jobWith(version))
	}
	must(t, os.Symlink("..v1", filepath.Join(dir, "..data")), os.Symlink("..data/web.hcl", filepath.Join(dir, "web.hcl")))
	w := startWatch(t, sealed, dir)
	w.runs("v1")
	must(t, os.Symlink("..v2", filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")))
	w.runs("v2")
}

func TestWatchSeesFilesThatJobsRead(t *testing.T) {
	dir := write(t, map[string]string{
		"jobs/web.hcl":      "variable \"v\" {}\njob \"web\" {\n  process \"p\" {\n    command = [\"echo\", \"${file(\"../conf/text\")}${var.v}\"]\n  }\n}\n",
		"conf/text":         "one",
		"vars/file.hclvars": `v = "."`,
	})
	vars := filepath.Join(dir, "vars", "file.hclvars")
	w := startWatch(t, Options{Environ: []string{}, VarFiles: []string{vars}}, filepath.Join(dir, "jobs"))
	w.runs("one.")
	put(t, filepath.Join(dir, "conf", "text"), "two")
	w.runs("two.")
	put(t, vars, `v = "!"`)
	w.runs("two!")
	must(t, os.RemoveAll(filepath.Join(dir, "conf")))
	w.until("an error", func(r result) bool { return r.diags.HasErrors() })
	must(t, os.Mkdir(filepath.Join(dir, "conf"), 0o755))
	put(t, filepath.Join(dir, "conf", "text"), "three")
	w.runs("three!")
}

func TestWatchJoinsChangesThatComeTogether(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("start"))
	// On a slow machine those that come together come slowly.
	w := startWatchAs(t, WatchOptions{Quiet: time.Second, Limit: 10 * time.Second}, sealed, dir)
	before := w.count()
	const edits = 200
	for i := range edits {
		put(t, file, jobWith(fmt.Sprint(i)))
	}
	w.runs(fmt.Sprint(edits - 1))
	if got := w.count() - before; got > edits/4 {
		t.Errorf("%d edits in a row were told %d times", edits, got)
	}
}

// TestWatchReadsEverythingAfterAnOverflow makes a change that the kernel does
// not tell about, and then says that the queue has overflowed.
func TestWatchReadsEverythingAfterAnOverflow(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.hcl")
	put(t, file, jobWith("before"))
	notify, err := fsnotify.NewWatcher()
	must(t, err)
	defer notify.Close()
	seen := make(chan string, 10)
	w := &watch{
		notify: notify, paths: []string{dir}, loader: NewLoader(sealed), logger: hclog.NewNullLogger(),
		opts: WatchOptions{Quiet: time.Millisecond, Limit: time.Millisecond},
		fn:   func(cfg *Config, _ Diagnostics) { seen <- cfg.Jobs[0].Job.Processes[0].Command[1].Text() },
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	if got := <-seen; got != "before" {
		t.Fatalf("first result is %q", got)
	}
	for _, watched := range notify.WatchList() {
		must(t, notify.Remove(watched))
	}
	put(t, file, jobWith("missed"))
	notify.Errors <- fsnotify.ErrEventOverflow
	select {
	case got := <-seen:
		if got != "missed" {
			t.Errorf("got %q", got)
		}
	case <-time.After(patience):
		t.Error("the missed change was never read")
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
