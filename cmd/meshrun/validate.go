package main

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/schema"
)

// validate checks job files.
type validate struct {
	sources
	term  *terminal
	paths []string
	json  bool
}

func validateCommand(term *terminal) *cobra.Command {
	c := &validate{term: term, sources: sources{term: term}}
	cmd := &cobra.Command{
		Use:   "validate [OPTIONS] [PATH…]",
		Short: "Check job files; needs no agent",
		Long:  "validate reads job files (without PATH, those of this directory) and shows every fault at once, with its\nline and the way to mend it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.paths = args
			return c.Run(cmd.Context())
		},
	}
	c.sources.flags(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print the faults as JSON")
	return cmd
}

// Run checks. The error is schema.Diagnostics, or exitCode(1) with -json.
func (c *validate) Run(context.Context) error {
	if len(c.paths) == 0 {
		c.paths = []string{"."}
	}
	cfg, diags := schema.Load(c.paths, c.options())
	if c.json {
		if diags == nil {
			diags = schema.Diagnostics{}
		}
		if err := c.term.json(diags); err != nil {
			return err
		}
		if diags.HasErrors() {
			return exitCode(1)
		}
		return nil
	}
	if diags.HasErrors() {
		return diags
	}
	c.term.diagnostics(diags)
	processes, files := 0, 0
	for _, j := range cfg.Jobs {
		processes += len(j.Job.Processes)
	}
	for _, f := range cfg.Files {
		if filepath.Ext(f) == ".hcl" {
			files++
		}
	}
	c.term.say("%s %s, %s, %s.", c.term.errStyle.green("Valid:"), count(files, "file"), count(len(cfg.Jobs), "job"), count(processes, "process"))
	return nil
}
