package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/schema"
)

// terminal is where a command reads and writes: data goes to out, messages to
// err. Tests replace all of it.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	// interactive is set if a person can be asked.
	interactive bool
	// live is set if out can be drawn over, liveErr if err can.
	live, liveErr bool
	// outStyle and errStyle colour what goes to out and err.
	outStyle, errStyle style
	// size returns the columns and rows of out, or of err if out has none; 0 if
	// neither has.
	size func() (columns, rows int)
	// env looks up environment variables.
	env func(string) (string, bool)
	now func() time.Time

	mu    sync.Mutex // keeps lines of out and err whole, and guards panel
	panel []string   // what draw shows
}

// newTerminal returns the terminal of a process. Colours are for terminals
// only, and never used with NO_COLOR.
func newTerminal(in *os.File, out, err *os.File, env func(string) (string, bool)) *terminal {
	noColor, _ := env("NO_COLOR")
	kind, _ := env("TERM")
	color := noColor == "" && kind != "dumb"
	outTerm, errTerm := term.IsTerminal(int(out.Fd())), term.IsTerminal(int(err.Fd()))
	return &terminal{
		in: in, out: out, err: err,
		interactive: term.IsTerminal(int(in.Fd())) && errTerm,
		live:        outTerm && kind != "dumb",
		liveErr:     errTerm && kind != "dumb",
		outStyle:    style{on: color && outTerm},
		errStyle:    style{on: color && errTerm},
		size: func() (int, int) {
			for _, f := range []*os.File{out, err} {
				if columns, rows, sizeErr := term.GetSize(int(f.Fd())); sizeErr == nil {
					return columns, rows
				}
			}
			return 0, 0
		},
		env: env,
		now: time.Now,
	}
}

// say prints a message.
func (t *terminal) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.wipe()
	fmt.Fprintf(t.err, format+"\n", args...)
	t.repaint()
}

// errorf prints an error.
func (t *terminal) errorf(format string, args ...any) {
	t.say("%s %s", t.errStyle.red("Error:"), fmt.Sprintf(format, args...))
}

// warnPartial makes a warning of an error that says that what was printed is
// not all, because some nodes did not answer.
func (t *terminal) warnPartial(err error) error {
	if !errors.Is(err, api.ErrPartial) {
		return err
	}
	t.say("%s %v", t.errStyle.yellow("Warning:"), err)
	return nil
}

// print prints data.
func (t *terminal) print(text string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := io.WriteString(t.out, text); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// json prints a value as indented JSON.
func (t *terminal) json(value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return t.print(string(data) + "\n")
}

// jsonLine prints a value as one line of JSON.
func (t *terminal) jsonLine(value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return t.print(string(data) + "\n")
}

// diagnostics prints what is wrong with files.
func (t *terminal) diagnostics(diags schema.Diagnostics) {
	if len(diags) == 0 {
		return
	}
	columns, _ := t.size()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := schema.WriteText(t.err, diags, columns, t.errStyle.on); err != nil {
		return // there is nowhere left to say it
	}
}

// lookup returns an environment variable, or "".
func (t *terminal) lookup(name string) string {
	value, _ := t.env(name)
	return value
}
