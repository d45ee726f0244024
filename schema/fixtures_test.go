package schema

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares text with a file, or writes it there.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the tests with -update to make it)", err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not current; run the tests with -update if the change is right:\n%s", path, Diff(path, "now", want, got))
	}
}

// sealed are options that take nothing from the environment.
var sealed = Options{Environ: []string{}}

func fixtures(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures %s: %v", pattern, err)
	}
	return files
}

func TestValidFilesHaveNoDiagnostics(t *testing.T) {
	for _, file := range fixtures(t, "testdata/valid/*.hcl") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			cfg, diags := Load([]string{file}, sealed)
			if len(diags) > 0 {
				t.Fatalf("unexpected: %s", text(diags))
			}
			jobs := make([]any, 0)
			for _, j := range cfg.Jobs {
				jobs = append(jobs, j.Job)
			}
			got, err := json.MarshalIndent(jobs, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			here, err := filepath.Abs(filepath.Dir(file))
			if err != nil {
				t.Fatal(err)
			}
			got = bytes.ReplaceAll(got, []byte(here), []byte("/HERE"))
			golden(t, strings.TrimSuffix(file, ".hcl")+".json", append(got, '\n'))
		})
	}
}

var expectation = regexp.MustCompile(`# ERROR: ([^#]*[^# ])`)

// expected reads the summaries of the errors that a file says it has, by line.
func expected(src string) map[int][]string {
	want := map[int][]string{}
	for i, line := range strings.Split(src, "\n") {
		for _, m := range expectation.FindAllStringSubmatch(line, -1) {
			want[i+1] = append(want[i+1], strings.TrimSpace(m[1]))
		}
	}
	return want
}

// TestInvalidFilesFailWhereTheySay holds for every file of the directory: the
// errors are those, and only those, that are written on the guilty lines.
func TestInvalidFilesFailWhereTheySay(t *testing.T) {
	files := fixtures(t, "testdata/invalid/*.hcl")
	if len(files) < 40 {
		t.Errorf("only %d invalid files", len(files))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := expected(string(src))
			if len(want) == 0 {
				t.Fatal("the file says no # ERROR:")
			}
			cfg, diags := Load([]string{file}, sealed)
			if cfg.Jobs != nil {
				t.Error("a broken file must give no jobs")
			}
			got := map[int][]string{}
			for _, d := range diags {
				if d.Range == nil || d.Snippet == nil {
					t.Errorf("%q has no place or no source", d.Summary)
					continue
				}
				if d.Detail == "" {
					t.Errorf("%q does not say how to mend it", d.Summary)
				}
				got[d.Range.Start.Line] = append(got[d.Range.Start.Line], d.Summary)
			}
			for line := range max(len(strings.Split(string(src), "\n")), 1) {
				if !slices.Equal(got[line+1], want[line+1]) {
					t.Errorf("line %d: got %q, want %q", line+1, got[line+1], want[line+1])
				}
			}
			if t.Failed() {
				t.Logf("\n%s", text(diags))
			}
		})
	}
}

// TestRenderedDiagnostics compares the text that people see, for those of the
// invalid files that have a golden file beside them.
func TestRenderedDiagnostics(t *testing.T) {
	for _, path := range fixtures(t, "testdata/invalid/*.txt") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			_, diags := Load([]string{strings.TrimSuffix(path, ".txt") + ".hcl"}, sealed)
			golden(t, path, []byte(text(diags)))
		})
	}
}

// TestDiagnosticsAsJSON keeps the form that programs read.
func TestDiagnosticsAsJSON(t *testing.T) {
	_, diags := Load([]string{"testdata/invalid/many_at_once.hcl", "testdata/invalid/ref_index.hcl"}, sealed)
	got, err := json.MarshalIndent(diags, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/diagnostics.json", append(got, '\n'))
	if _, none := Load([]string{"testdata/valid/empty.hcl"}, sealed); none == nil {
		t.Error("no diagnostics must be an empty list, not null")
	}
}

func text(diags Diagnostics) string {
	var b strings.Builder
	if err := WriteText(&b, diags, 100, false); err != nil {
		return err.Error()
	}
	return b.String()
}

// TestExamplesOfTheTable checks that what the reference shows can be written.
func TestExamplesOfTheTable(t *testing.T) {
	var visit func(b *Block)
	visit = func(b *Block) {
		if b.Example != "" {
			t.Run(b.Name, func(t *testing.T) { checkExample(t, b.Example, b.Needs != "") })
		}
		for _, n := range b.Blocks {
			visit(n)
		}
	}
	visit(Root)
	t.Run("dynamic", func(t *testing.T) { checkExample(t, dynamicExample, false) })
}

func checkExample(t *testing.T, src string, unavailable bool) {
	t.Helper()
	formatted, diags := Format([]byte(src), "example.hcl")
	if diags.HasErrors() {
		t.Fatal(text(diags))
	}
	if string(formatted) != src {
		t.Errorf("not formatted:\n%s", Diff("example", "formatted", []byte(src), formatted))
	}
	_, diags = loadText(t, src)
	for _, d := range diags {
		if !unavailable || d.Summary != notAvailable {
			t.Errorf("%s", text(diags))
		}
	}
	if unavailable && len(diags) != 1 {
		t.Errorf("got %d diagnostics, want one that says %q", len(diags), notAvailable)
	}
}

// loadText loads one file with the given text.
func loadText(t testing.TB, src string) (*Config, Diagnostics) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.hcl")
	if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	return Load([]string{path}, sealed)
}
