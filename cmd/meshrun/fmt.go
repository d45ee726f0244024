package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/schema"
)

// format brings job files into the canonical layout.
type format struct {
	term        *terminal
	paths       []string
	check, diff bool
}

func fmtCommand(term *terminal) *cobra.Command {
	c := &format{term: term}
	cmd := &cobra.Command{
		Use:   "fmt [OPTIONS] [PATH… | -]",
		Short: "Bring job files into the canonical layout; needs no agent",
		Long: "fmt rewrites job files (without PATH, those of this directory) so that they all look alike, and names the\n" +
			"ones that it changed. With \"-\" it formats standard input. A file with a syntax error is left alone.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.paths = args
			return c.Run(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&c.check, "check", false, "change nothing; the exit code is 1 if a file isn't formatted")
	cmd.Flags().BoolVar(&c.diff, "diff", false, "change nothing; show what would change")
	return cmd
}

// Run formats. It returns exitCode(1) if check finds something, and
// schema.Diagnostics of the files that cannot be parsed.
func (c *format) Run(context.Context) error {
	if len(c.paths) == 0 {
		c.paths = []string{"."}
	}
	if len(c.paths) == 1 && c.paths[0] == "-" {
		return c.stdin()
	}
	files, err := formatFiles(c.paths)
	if err != nil {
		return err
	}
	var broken schema.Diagnostics
	changed := 0
	for _, path := range files {
		differs, diags, err := c.file(path)
		if err != nil {
			return err
		}
		broken = append(broken, diags...)
		if differs {
			changed++
		}
	}
	switch {
	case len(broken) > 0:
		return broken
	case changed > 0 && c.check:
		return exitCode(1)
	}
	return nil
}

// maxStdin bounds what is formatted from standard input.
const maxStdin = 4 << 20

func (c *format) stdin() error {
	src, err := io.ReadAll(io.LimitReader(c.term.in, maxStdin+1))
	if err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	out, diags := schema.Format(src, "<stdin>")
	switch {
	case diags.HasErrors():
		return diags
	case c.diff:
		err = c.term.print(schema.Diff("<stdin>", "<stdin> formatted", src, out))
	case !c.check:
		err = c.term.print(string(out))
	}
	if err == nil && c.check && string(out) != string(src) {
		return exitCode(1)
	}
	return err
}

// file formats one file and reports whether it was not formatted.
func (c *format) file(path string) (bool, schema.Diagnostics, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return false, nil, fmt.Errorf("read job file: %w", err)
	}
	out, diags := schema.Format(src, path)
	if diags.HasErrors() || string(out) == string(src) {
		return false, diags, nil
	}
	if c.diff {
		return true, nil, c.term.print(schema.Diff(path, path+" formatted", src, out))
	}
	if !c.check {
		if err := replaceFile(path, out); err != nil {
			return false, nil, err
		}
	}
	return true, nil, c.term.print(path + "\n")
}

// formatFiles returns the job files that the paths name.
func formatFiles(paths []string) ([]string, error) {
	var files []string
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, fmt.Errorf("read job files: %w", err)
		}
		if !info.IsDir() {
			files = append(files, p)
			continue
		}
		entries, err := os.ReadDir(p)
		if err != nil {
			return nil, fmt.Errorf("read job files: %w", err)
		}
		for _, e := range entries {
			if !e.IsDir() && strings.HasSuffix(e.Name(), ".hcl") && !strings.HasPrefix(e.Name(), ".") {
				files = append(files, filepath.Join(p, e.Name()))
			}
		}
	}
	return files, nil
}

// replaceFile replaces a file in one step, so that whoever watches it never
// sees half of it. A link is followed, and the mode is kept.
func replaceFile(path string, data []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("write job file: %w", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return fmt.Errorf("write job file: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(real), "."+filepath.Base(real)+"-*")
	if err != nil {
		return fmt.Errorf("write job file: %w", err)
	}
	defer os.Remove(tmp.Name()) // a no-op once it has its final name
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Chmod(info.Mode().Perm())
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), real)
	}
	if err != nil {
		return fmt.Errorf("write job file: %w", err)
	}
	return nil
}
