package schema

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/synergymesh/meshrun/spec"
)

// Options say what files are read with.
type Options struct {
	// Vars are values of variables, as "name=value"; the last one wins.
	Vars []string
	// VarFiles are files of values of variables, one attribute each.
	VarFiles []string
	// Environ is the environment for MESHRUN_VAR_* and env(), as "KEY=value";
	// nil means the process's own.
	Environ []string
}

// Config is what files say. On errors it has no jobs: a broken file changes
// nothing.
type Config struct {
	// Jobs are normalized, valid and sorted by name. They must not be changed,
	// since a Loader gives unchanged ones again.
	Jobs []Loaded
	// Files are the absolute paths of all files that were read, or looked for
	// by file(), sorted: a change of any of them can change the jobs.
	Files []string
	// digest identifies all that was read.
	digest digest
}

// digest is the SHA-256 of something.
type digest [sha256.Size]byte

// Loaded is a job and where it was read.
type Loaded struct {
	Job spec.Job
	// Source is the absolute path of the file that has the job.
	Source string
	// Range is the place of the job's header.
	Range Range
}

// Load reads jobs from files and directories (a directory is all its *.hcl
// files, without those in directories below it), and reports all errors of
// all files. The files of one directory share variables and locals. Config is
// never nil. Warnings come among the diagnostics.
func Load(paths []string, opts Options) (*Config, Diagnostics) {
	return NewLoader(opts).Load(paths)
}

// Loader reads the same files again and again, and parses only those that have
// changed. It must not be used by two goroutines at a time.
type Loader struct {
	opts Options
	// parsed and decoded are the files of the last Load, by the names that they
	// are shown by.
	parsed  map[string]parsedFile
	decoded map[string]decodedFile
	// scopes are what the files were decoded in, by directory.
	scopes map[string]*scope
}

// NewLoader returns a loader with nothing read.
func NewLoader(opts Options) *Loader {
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	return &Loader{opts: opts, scopes: map[string]*scope{}}
}

// Load reads jobs as the function Load does.
func (l *Loader) Load(paths []string) (*Config, Diagnostics) {
	run := &loading{
		loader: l, environ: environment(l.opts.Environ),
		files: map[string]*hcl.File{}, parsed: map[string]parsedFile{}, decoded: map[string]decodedFile{}, read: map[string]digest{},
	}
	run.collect(paths)
	run.assignments()
	for _, d := range run.dirs {
		run.directory(d)
	}
	run.unusedVars()
	l.parsed, l.decoded = run.parsed, run.decoded
	cfg := &Config{Files: sortedKeys(run.read), digest: run.digest()}
	jobs := run.finish()
	diags := describe(run.diags, run.files)
	if !diags.HasErrors() {
		cfg.Jobs = jobs
	}
	return cfg, diags
}

// loading is one run of Load.
type loading struct {
	loader  *Loader
	environ map[string]string
	// dirs are the directories that files were found in, in order.
	dirs []*directory
	// given are the values of variables from outside, by name.
	given map[string]*assignment
	jobs  []*decodedJob
	// files are for showing the source of faults.
	files  map[string]*hcl.File
	parsed map[string]parsedFile
	// decoded are the files with their jobs.
	decoded map[string]decodedFile
	// reads counts the calls of file().
	reads int
	// read are the absolute paths of what was read, with what was there.
	read  map[string]digest
	diags hcl.Diagnostics
}

// directory is a directory with those of its files that are read together.
type directory struct {
	path  string // absolute
	files []source
	scope *scope
}

// source is one file: its name as the user knows it, and its absolute path.
type source struct{ name, path string }

func environment(environ []string) map[string]string {
	m := make(map[string]string, len(environ))
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			m[k] = v
		}
	}
	return m
}

// fail reports an error that is in no place of a file.
func (l *loading) fail(summary, detail string) {
	l.diags = append(l.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail})
}

// collect finds the files of the given paths, each once.
func (l *loading) collect(paths []string) {
	seen := map[string]bool{}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			l.unreadable(p, err)
			continue
		}
		names := []string{p}
		if info.IsDir() {
			if names, err = filesIn(p); err != nil {
				l.unreadable(p, err)
				continue
			}
			if len(names) == 0 {
				l.diags = append(l.diags, &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: "No job files", Detail: fmt.Sprintf("The directory %s has no *.hcl files.", p)})
			}
		}
		for _, name := range names {
			abs, err := filepath.Abs(name)
			if err != nil {
				l.unreadable(name, err)
			} else if !seen[abs] {
				seen[abs] = true
				l.add(source{name: name, path: abs})
			}
		}
	}
}

func (l *loading) add(s source) {
	dir := filepath.Dir(s.path)
	i := slices.IndexFunc(l.dirs, func(d *directory) bool { return d.path == dir })
	if i < 0 {
		i = len(l.dirs)
		l.dirs = append(l.dirs, &directory{path: dir})
	}
	l.dirs[i].files = append(l.dirs[i].files, s)
}

// note records what was found at a path.
func (l *loading) note(path string, content []byte, err error) {
	if err != nil {
		content = []byte("error: " + err.Error())
	}
	l.read[absolute(path)] = sha256.Sum256(content)
}

// included records what file() found at a path.
func (l *loading) included(path string, content []byte, err error) {
	l.reads++
	l.note(path, content, err)
}

// digest identifies all that was read, and what could not be.
func (l *loading) digest() digest {
	h := sha256.New()
	for _, path := range sortedKeys(l.read) {
		sum := l.read[path]
		fmt.Fprintf(h, "%q %x\n", path, sum)
	}
	for _, d := range l.diags {
		if d.Subject == nil {
			fmt.Fprintf(h, "%q %q\n", d.Summary, d.Detail)
		}
	}
	return digest(h.Sum(nil))
}

// unreadable reports a path that cannot be read.
func (l *loading) unreadable(path string, err error) {
	if errors.Is(err, fs.ErrNotExist) {
		l.fail("Not found", fmt.Sprintf("There is no file or directory %s.", path))
		return
	}
	l.fail("Cannot read", fmt.Sprintf("%s cannot be read: %v.", path, errors.Unwrap(err)))
}

// filesIn returns the *.hcl files of a directory, sorted, without hidden files
// and those that editors leave while they save.
func filesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() && isJobFile(e.Name()) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// isJobFile reports whether a file of a directory is read by its name.
func isJobFile(name string) bool {
	return strings.HasSuffix(name, ".hcl") && !strings.HasPrefix(name, ".") && !strings.HasPrefix(name, "#") && !strings.HasPrefix(name, "~")
}

// finish makes the jobs, after checking what they mean.
func (l *loading) finish() []Loaded {
	var out []Loaded
	first := map[string]hcl.Range{}
	byName, jobs := map[string]*decodedJob{}, map[string]*spec.Job{}
	for _, j := range l.jobs {
		l.diags = append(l.diags, j.diags...)
		if at, ok := first[j.name]; ok {
			l.diags = append(l.diags, &hcl.Diagnostic{
				Severity: hcl.DiagError, Summary: "Duplicate job", Subject: &j.header,
				Detail: fmt.Sprintf("The job %q is defined twice: here, and at %s:%d. Rename or remove one of the two.", j.name, at.Filename, at.Start.Line),
			})
			continue
		}
		first[j.name] = j.header
		l.diags = append(l.diags, j.meaning...)
		byName[j.name], jobs[j.name] = j, &j.job
		out = append(out, Loaded{Job: j.job, Source: absolute(j.header.Filename), Range: rangeOf(j.header)})
	}
	for _, problem := range spec.Circles(jobs) {
		if d := byName[problem.Job].diagnostic(problem.Problem); d != nil {
			l.diags = append(l.diags, d)
		}
	}
	slices.SortFunc(out, func(a, b Loaded) int { return strings.Compare(a.Job.Name, b.Job.Name) })
	return out
}

func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
