package schema

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func TestFormatAligns(t *testing.T) {
	got, diags := Format([]byte("job \"a\" {\nprocess   \"b\" {\ncommand=[ \"x\",1 ]\nuser = \"u\" # why\n}\n}\n"), "a.hcl")
	if len(diags) > 0 {
		t.Fatal(text(diags))
	}
	want := "job \"a\" {\n  process \"b\" {\n    command = [\"x\", 1]\n    user    = \"u\" # why\n  }\n}\n"
	if string(got) != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestFormatRefusesBrokenFiles(t *testing.T) {
	got, diags := Format([]byte("job \"a\" {\n"), "a.hcl")
	if got != nil || !diags.HasErrors() || diags[0].Range == nil || diags[0].Range.File != "a.hcl" {
		t.Errorf("got %q, %s", got, text(diags))
	}
}

func TestDiff(t *testing.T) {
	tests := map[string]struct{ before, after, want string }{
		"equal":      {"a\n", "a\n", ""},
		"changed":    {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n", "--- a\n+++ b\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"},
		"from empty": {"", "a\n", "--- a\n+++ b\n@@ -0,0 +1 @@\n+a\n"},
		"to empty":   {"a\n", "", "--- a\n+++ b\n@@ -1 +0,0 @@\n-a\n"},
		"no newline": {"a", "a\n", "--- a\n+++ b\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		"two hunks":  {"a\n1\n2\n3\n4\n5\n6\n7\nb\n", "A\n1\n2\n3\n4\n5\n6\n7\nB\n", "--- a\n+++ b\n@@ -1,4 +1,4 @@\n-a\n+A\n 1\n 2\n 3\n@@ -6,4 +6,4 @@\n 5\n 6\n 7\n-b\n+B\n"},
		"moved":      {"a\nb\nc\n", "b\nc\na\n", "--- a\n+++ b\n@@ -1,3 +1,3 @@\n-a\n b\n c\n+a\n"},
	}
	for name, test := range tests {
		if got := Diff("a", "b", []byte(test.before), []byte(test.after)); got != test.want {
			t.Errorf("%s: got:\n%s\nwant:\n%s", name, got, test.want)
		}
	}
}

// seed gives a fuzz target all fixtures.
func seed(f *testing.F) {
	for _, pattern := range []string{"testdata/valid/*.hcl", "testdata/invalid/*.hcl"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, path := range files {
			src, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(src)
		}
	}
}

// meaningOf is a file's tokens: all but the blanks between them.
func meaningOf(src []byte) string {
	tokens, _ := hclsyntax.LexConfig(src, "a.hcl", hcl.InitialPos)
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString(t.Type.String())
		if t.Type == hclsyntax.TokenComment || t.Type == hclsyntax.TokenNewline {
			b.Write(bytes.TrimSpace(t.Bytes))
		} else {
			b.Write(t.Bytes)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func FuzzFormat(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		once, diags := Format(src, "a.hcl")
		if diags.HasErrors() {
			return
		}
		twice, diags := Format(once, "a.hcl")
		if diags.HasErrors() {
			t.Fatalf("the formatted file is broken: %s\n%s", text(diags), once)
		}
		if !bytes.Equal(once, twice) {
			t.Fatalf("formatting again changed it:\n%s", Diff("once", "twice", once, twice))
		}
		if a, b := meaningOf(src), meaningOf(once); a != b {
			t.Fatalf("formatting changed more than blanks:\n%s", Diff("before", "after", []byte(a), []byte(b)))
		}
	})
}

func FuzzLoad(f *testing.F) {
	seed(f)
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, src []byte) {
		path := filepath.Join(dir, "fuzz.hcl")
		if err := os.WriteFile(path, src, 0o644); err != nil {
			t.Fatal(err)
		}
		cfg, diags := Load([]string{path}, sealed)
		if diags.HasErrors() == (cfg.Jobs != nil) && len(cfg.Jobs) > 0 {
			t.Fatal("jobs and errors at once")
		}
		for _, d := range diags {
			if d.Summary == "" || d.Summary == "Cannot evaluate" || d.Range == nil {
				t.Fatalf("%+v of\n%s", d, src)
			}
		}
		_ = text(diags)
		for _, j := range cfg.Jobs {
			for _, p := range j.Job.Processes {
				for _, c := range p.Command {
					_, _ = Expand(c, onNode)
				}
			}
		}
	})
}
