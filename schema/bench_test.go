package schema

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/spec"
)

// manyFiles writes files with processes that use the language as people do.
func manyFiles(tb testing.TB, files, processes int) string {
	tb.Helper()
	dir := tb.TempDir()
	var b strings.Builder
	for f := range files {
		b.Reset()
		fmt.Fprintf(&b, "job \"job-%d\" {\n", f)
		for p := range processes {
			fmt.Fprintf(&b, `  process "p-%d" {
    command = ["./server", "--port", port.http, "--name", "p-%d-${shard.index}", local.data]
    dir     = local.data
    env     = { LOG_LEVEL = "info", NODE = node.name, DATA = "${local.data}/x" }
    restart {
      policy = "on-failure"
      delay  = "1s"
    }
    stop { timeout = "5s" }
    port "http" {}
  }
`, p, p)
		}
		b.WriteString("}\n")
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("job-%d.hcl", f)), []byte(b.String()), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "locals.hcl"), []byte("locals { data = \"/var/lib/x\" }\n"), 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

// BenchmarkLoad1000 loads 1,000 processes in 10 files from nothing.
func BenchmarkLoad1000(b *testing.B) {
	dir := manyFiles(b, 10, 100)
	for b.Loop() {
		if cfg, diags := Load([]string{dir}, sealed); len(diags) > 0 || len(cfg.Jobs) != 10 {
			b.Fatal(text(diags))
		}
	}
}

// BenchmarkReload1000 loads them again after an edit of one of the files.
func BenchmarkReload1000(b *testing.B) {
	dir := manyFiles(b, 10, 100)
	file := filepath.Join(dir, "job-5.hcl")
	src, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	loader := NewLoader(sealed)
	loader.Load([]string{dir})
	n := 0
	for b.Loop() {
		n++
		edited := strings.Replace(string(src), "info", fmt.Sprintf("debug-%d", n), 1)
		if err := os.WriteFile(file, []byte(edited), 0o644); err != nil {
			b.Fatal(err)
		}
		if cfg, diags := loader.Load([]string{dir}); len(diags) > 0 || len(cfg.Jobs) != 10 {
			b.Fatal(text(diags))
		}
	}
}

func BenchmarkExpand(b *testing.B) {
	for name, tmpl := range map[string]string{"literal": "--fast", "reference": "--port=${port.http}"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Expand(spec.Template(tmpl), onNode); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
