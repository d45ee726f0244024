// Command meshrun keeps processes running the way HCL files say.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/schema"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], newTerminal(os.Stdin, os.Stdout, os.Stderr, os.LookupEnv)))
}

// run runs one command and returns the exit code of the process.
func run(ctx context.Context, args []string, term *terminal) int {
	root := newRoot
	if len(args) > 0 && args[0] == "watchdog" {
		// The parent of everything stays small: it needs none of the others.
		root, args = watchdogCommand, args[1:]
	}
	cmd := root(term)
	cmd.SetArgs(normalizeArgs(cmd, args))
	if !stays(cmd, args) {
		// A command that ends in a moment need not save memory for later.
		debug.SetGCPercent(400)
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
		defer stop()
	}
	return term.report(ctx, cmd.ExecuteContext(ctx))
}

// stays reports whether a command decides by itself what a signal means.
func stays(cmd *cobra.Command, args []string) bool {
	if found, _, err := cmd.Find(args); err == nil {
		cmd = found
	}
	return slices.Contains([]string{"up", "agent", "watchdog"}, cmd.Name())
}

// exitCode is an error that only sets the exit code: all was said already.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exitWaits is the exit code of who has waited for something that goes on only
// once somebody does something: it has neither failed nor ended.
const exitWaits = 3

// waitsError says for whom or what it is waited then.
type waitsError struct{ error }

func (e *waitsError) Unwrap() error { return e.error }

// usageError is a command line that is not understood.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// report prints an error and returns the exit code.
func (t *terminal) report(ctx context.Context, err error) int {
	var code exitCode
	var waits *waitsError
	var usage *usageError
	var diags schema.Diagnostics
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &waits):
		t.say("%s %v", t.errStyle.yellow("Waiting:"), err)
		return exitWaits
	case errors.As(err, &diags):
		t.diagnostics(diags)
	case errors.As(err, &usage):
		t.errorf("%v", err)
		t.say("%s", t.errStyle.dim(fmt.Sprintf("`%s -help` tells how it is used.", usage.command)))
	case ctx.Err() != nil:
		t.say("interrupted")
	default:
		t.errorf("%v", err)
	}
	return 1
}
