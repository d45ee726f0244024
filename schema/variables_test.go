package schema

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// write puts files into a new directory and returns it.
func write(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, src := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(src), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const echoJob = `
variable "x" {
  type    = string
  default = "default"
}
job "web" {
  process "server" {
    command = ["echo", var.x]
  }
}
`

func TestVariableSourcesOverrideOneAnother(t *testing.T) {
	dir := write(t, map[string]string{"a.hcl": echoJob, "one.vars": `x = "file one"`, "two.vars": `x = "file two"`})
	one, two := filepath.Join(dir, "one.vars"), filepath.Join(dir, "two.vars")
	env := []string{"MESHRUN_VAR_x=environment", "MESHRUN_VAR_other=ignored"}
	tests := []struct {
		name string
		opts Options
		want string
	}{
		{"default", Options{Environ: []string{}}, "default"},
		{"environment over default", Options{Environ: env}, "environment"},
		{"file over environment", Options{Environ: env, VarFiles: []string{one}}, "file one"},
		{"later file over earlier", Options{Environ: env, VarFiles: []string{one, two}}, "file two"},
		{"flag over file", Options{Environ: env, VarFiles: []string{one, two}, Vars: []string{"x=flag"}}, "flag"},
		{"later flag over earlier", Options{Environ: env, Vars: []string{"x=flag", "x=a=b"}}, "a=b"},
		{"empty is a value", Options{Environ: env, Vars: []string{"x="}}, ""},
		{"text of a string is no template", Options{Environ: env, Vars: []string{"x=${shard.index}"}}, "$${shard.index}"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, diags := Load([]string{dir}, test.opts)
			if len(diags) > 0 {
				t.Fatal(text(diags))
			}
			if got := string(cfg.Jobs[0].Job.Processes[0].Command[1]); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestVariablesOfOtherTypesAreExpressions(t *testing.T) {
	dir := write(t, map[string]string{"a.hcl": `
variable "n" { type = number }
variable "l" { type = list(string) }
variable "o" {
  type = object({ a = string, b = optional(number, 7) })
}
job "web" {
  process "server" {
    command = concat(["x"], var.l, [var.o.a, tostring(var.o.b)])
    shards  = var.n
  }
}
`})
	cfg, diags := Load([]string{dir}, Options{Environ: []string{`MESHRUN_VAR_l=["p", "q"]`}, Vars: []string{"n=3", `o={a = "z"}`}})
	if len(diags) > 0 {
		t.Fatal(text(diags))
	}
	p := cfg.Jobs[0].Job.Processes[0]
	if p.Shards != 3 {
		t.Errorf("shards is %d", p.Shards)
	}
	var got []string
	for _, c := range p.Command {
		got = append(got, c.Text())
	}
	if want := []string{"x", "p", "q", "z", "7"}; !slices.Equal(got, want) {
		t.Errorf("command is %q, want %q", got, want)
	}
}

func TestWrongValuesNameTheirSource(t *testing.T) {
	dir := write(t, map[string]string{"a.hcl": `variable "workers" { type = number }`, "v.vars": "\nworkers = [1]\n"})
	file := filepath.Join(dir, "v.vars")
	tests := []struct {
		name string
		opts Options
		want []string
	}{
		{"flag", Options{Environ: []string{}, Vars: []string{`workers="x"`}}, []string{"<value for var.workers>", "from -var", `1: "x"`}},
		{"flag syntax", Options{Environ: []string{}, Vars: []string{`workers=[`}}, []string{"<value for var.workers>"}},
		{"environment", Options{Environ: []string{`MESHRUN_VAR_workers=[]`}}, []string{"the environment variable MESHRUN_VAR_workers"}},
		{"file", Options{Environ: []string{}, VarFiles: []string{file}}, []string{"v.vars line 2", "v.vars:2"}},
		{"missing", Options{Environ: []string{}}, []string{"No value for variable", "-var workers="}},
		{"misspelt", Options{Environ: []string{}, Vars: []string{"workers=1", "wrokers=2"}}, []string{"Unknown variable", `"workers"`}},
		{"no equals sign", Options{Environ: []string{}, Vars: []string{"workers"}}, []string{"Invalid -var"}},
		{"no such file", Options{Environ: []string{}, VarFiles: []string{"no-such.vars"}}, []string{"no-such.vars"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			cfg, diags := Load([]string{dir}, test.opts)
			if !diags.HasErrors() || cfg.Jobs != nil {
				t.Fatal("it was accepted")
			}
			for _, want := range test.want {
				if got := strings.Join(strings.Fields(text(diags)), " "); !strings.Contains(got, want) {
					t.Errorf("%q is missing in:\n%s", want, got)
				}
			}
		})
	}
}

const secret = "hunter2"

// TestSecretsAreInNoDiagnostic gives a sensitive variable to all sorts of
// mistakes; none may show it, in text or in JSON.
func TestSecretsAreInNoDiagnostic(t *testing.T) {
	head := func(ty string) string {
		return "variable \"token\" {\n  type      = " + ty + "\n  sensitive = true\n}\n"
	}
	process := func(body string) string {
		return "job \"web\" {\n  process \"server\" {\n    command = [\"x\"]\n    " + body + "\n  }\n}\n"
	}
	for name, src := range map[string]string{
		"type":       head("number"),
		"list":       head("list(number)"),
		"duration":   head("string") + process(`stop { timeout = var.token }`),
		"size":       head("string") + process(`logs { max_size = var.token }`),
		"enum":       head("string") + process(`restart { policy = var.token }`),
		"signal":     head("string") + process(`stop { signal = var.token }`),
		"int":        head("string") + process(`shards = var.token`),
		"bool":       head("string") + process(`critical = var.token`),
		"function":   head("string") + process(`dir = tonumber(var.token)`),
		"local":      head("string") + "locals { t = \"${var.token}!\" }\n" + process(`shards = tonumber(local.t)`),
		"key":        head("string") + process(`env = { (var.token) = "x" }`),
		"index":      head("string") + process(`dir = { a = "b" }[var.token]`),
		"json":       head("string") + process(`dir = jsondecode(var.token).x`),
		"regex":      head("string") + process(`dir = regex("^[0-9]+$", var.token)`),
		"reference":  head("string") + process(`dir = var.token.x`),
		"iteration":  head("string") + process(`dir = join(",", [for k in var.token : k])`),
		"labels":     head("string") + "job \"web\" {\n  labels = { t = var.token }\n  process \"server\" {\n    command = [\"x\"]\n  }\n}\n",
		"validation": "variable \"token\" {\n  sensitive = true\n  validation {\n    condition     = var.token == \"\"\n    error_message = \"Not ${var.token}.\"\n  }\n}\n",
		"file":       head("string") + process(`dir = file(var.token)`),
		"user":       head("string") + process(`user = "${var.token}/!"`),
		"env name":   head("string") + process(`env = { "1" = var.token }`),
		"port":       head("string") + process("port \"http\" {\n      static = var.token\n    }"),
	} {
		for source, opts := range map[string]Options{
			"flag":        {Environ: []string{}, Vars: []string{"token=" + secret}},
			"quoted flag": {Environ: []string{}, Vars: []string{`token="` + secret + `"`}},
			"environment": {Environ: []string{"MESHRUN_VAR_token=" + secret}},
			"file":        {Environ: []string{}, VarFiles: []string{write(t, map[string]string{"v": "token = \"" + secret + "\"\n"}) + "/v"}},
		} {
			t.Run(name+"/"+source, func(t *testing.T) {
				dir := write(t, map[string]string{"a.hcl": src})
				_, diags := Load([]string{dir}, opts)
				if !diags.HasErrors() {
					t.Fatal("it was accepted")
				}
				asJSON, err := json.Marshal(diags)
				if err != nil {
					t.Fatal(err)
				}
				for _, shown := range []string{text(diags), string(asJSON), diags.Error()} {
					if strings.Contains(shown, secret) {
						t.Errorf("the secret is shown:\n%s", shown)
					}
				}
			})
		}
	}
}

func TestSensitiveFieldsAreListed(t *testing.T) {
	cfg, diags := loadText(t, `
variable "token" {
  default   = "hunter2"
  sensitive = true
}
locals { header = "Bearer ${var.token}" }
job "web" {
  process "server" {
    command = ["x", "--plain", local.header, "${var.token}-${shard.index}"]
    dir     = "/srv/${var.token}"
    env = {
      TOKEN = var.token
      PLAIN = "x"
      MAYBE = var.token != "" ? "long" : "short"
    }
    stop { timeout = "${var.token == "" ? 1 : 2}s" }
    reload { files = concat(["a"], [var.token]) }
  }
  process "spread" {
    command = concat(["x", shard.index], [for n in ["y"] : "${n}${shard.index}" if var.token != ""])
    env     = merge({ A = shard.index }, var.token == "" ? {} : { B = shard.index })
  }
}
`)
	if len(diags) > 0 {
		t.Fatal(text(diags))
	}
	if got := cfg.Jobs[0].Job.Processes[1].Sensitive; !slices.Equal(got, []string{"command", "env"}) {
		t.Errorf("of what a sensitive value decides, %q is listed", got)
	}
	got := cfg.Jobs[0].Job.Processes[0].Sensitive
	want := []string{"command[2]", "command[3]", "dir", "env.MAYBE", "env.TOKEN", "reload.files[0]", "reload.files[1]", "stop.timeout"}
	for _, path := range want {
		if !slices.Contains(got, path) {
			t.Errorf("%s is not listed in %q", path, got)
		}
	}
	for _, path := range []string{"env.PLAIN", "command[1]"} {
		if slices.Contains(got, path) {
			t.Errorf("%s is listed", path)
		}
	}
}

func TestDirectoriesHaveTheirOwnNames(t *testing.T) {
	dir := write(t, map[string]string{
		"a/vars.hcl":   `variable "x" { default = "in a" }`,
		"a/jobs.hcl":   "job \"a\" {\n  process \"p\" {\n    command = [var.x]\n  }\n}\n",
		"b/all.hcl":    "variable \"x\" { default = \"in b\" }\njob \"b\" {\n  process \"p\" {\n    command = [var.x]\n  }\n}\n",
		"a/.#jobs.hcl": "broken {", "a/jobs.hcl~": "broken {", "a/#jobs.hcl#": "broken {", "a/jobs.hcl.swp": "broken {", "a/sub/x.hcl": "broken {",
	})
	cfg, diags := Load([]string{filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "a", "jobs.hcl")}, sealed)
	if len(diags) > 0 {
		t.Fatal(text(diags))
	}
	if len(cfg.Jobs) != 2 || cfg.Jobs[0].Job.Processes[0].Command[0] != "in a" || cfg.Jobs[1].Job.Processes[0].Command[0] != "in b" {
		t.Errorf("got %+v", cfg.Jobs)
	}
	if want := filepath.Join(dir, "b", "all.hcl"); cfg.Jobs[1].Source != want {
		t.Errorf("source is %q, want %q", cfg.Jobs[1].Source, want)
	}
	if len(cfg.Files) != 3 {
		t.Errorf("files are %q", cfg.Files)
	}
}

func TestDuplicateJobNamesBothFiles(t *testing.T) {
	job := "job \"web\" {\n  process \"p\" {\n    command = [\"x\"]\n  }\n}\n"
	dir := write(t, map[string]string{"one/a.hcl": job, "two/b.hcl": "\n" + job})
	_, diags := Load([]string{filepath.Join(dir, "one"), filepath.Join(dir, "two")}, sealed)
	got := text(diags)
	if len(diags) != 1 || !strings.Contains(got, "b.hcl line 2") || !strings.Contains(got, "a.hcl:1") {
		t.Errorf("got %s", got)
	}
}

func TestLoadRefusesWhatItCannotRead(t *testing.T) {
	dir := write(t, map[string]string{
		"large/a.hcl": strings.Repeat("#", MaxFile+1),
		"deep/a.hcl":  "locals { a = " + strings.Repeat("[", 200_000),
		"minus/a.hcl": "locals { a = " + strings.Repeat("-", 200_000) + "1 }",
		"sum/a.hcl":   "locals { a = 1" + strings.Repeat("+1", 200_000) + " }",
		"quote/a.hcl": "locals { a = " + strings.Repeat("\"${", 100_000),
		"body/a.hcl":  strings.Repeat("a {\n", 100_000),
		"if/a.hcl":    "locals { a = \"" + strings.Repeat("%{if true}", 100_000),
		"bytes/a.hcl": "\xff\xfe\x00",
	})
	for name, want := range map[string]string{
		"large": "too large", "deep": "Expression too complex", "minus": "Expression too complex", "sum": "Expression too complex",
		"quote": "Expression too complex", "body": "Expression too complex", "if": "Expression too complex", "bytes": "Invalid", "nothing-here": "Not found",
	} {
		_, diags := Load([]string{filepath.Join(dir, name)}, sealed)
		if got := text(diags); !diags.HasErrors() || !strings.Contains(got, want) {
			t.Errorf("%s: want %q, got %.500s", name, want, got)
		}
	}
}

func TestDiagnosticsAreTheSameEveryTime(t *testing.T) {
	files := fixtures(t, "testdata/invalid/*.hcl")
	_, first := Load(files, sealed)
	for range 5 {
		_, again := Load(files, sealed)
		if text(again) != text(first) {
			t.Fatal("the diagnostics changed their order")
		}
	}
	if !slices.IsSortedFunc(first, compareDiagnostics) {
		t.Error("the diagnostics are not sorted")
	}
}

func TestColourAndWidthOfDiagnostics(t *testing.T) {
	_, diags := Load([]string{"testdata/invalid/meaning_reschedule.hcl"}, sealed)
	var plain, narrow, colour bytes.Buffer
	for _, err := range []error{WriteText(&plain, diags, 0, false), WriteText(&narrow, diags, 60, false), WriteText(&colour, diags, 0, true)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colour.String(), "\x1b[1;31mError: \x1b[0m") {
		t.Error("colours are not as asked for")
	}
	for line := range strings.Lines(narrow.String()) {
		if len(strings.TrimRight(line, "\n")) > 60 && !strings.Contains(line, ": ") && !strings.Contains(line, " on ") {
			t.Errorf("line is wider than 60: %q", line)
		}
	}
}

func TestTextFromFilesCannotSteerTheTerminal(t *testing.T) {
	_, diags := loadText(t, "job \"we\x1b[2Jb\" {\n  process \"p\" {\n    command = [nope(\"\x1b[31m\")]\n  }\n}\n")
	if got := text(diags); !diags.HasErrors() || strings.Contains(got, "\x1b") {
		t.Errorf("got %q", got)
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	dir := write(t, map[string]string{"a.hcl": ""})
	l := &loading{} // its maps are missing, so that reading panics
	l.directory(&directory{path: dir, files: []source{{name: "a.hcl", path: filepath.Join(dir, "a.hcl")}}})
	if len(l.diags) != 1 || l.diags[0].Summary != "Cannot evaluate" || !strings.Contains(l.diags[0].Detail, "schema.(*loading)") {
		t.Errorf("got %v", l.diags)
	}
}
