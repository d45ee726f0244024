package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/schema"
)

// sources is how a command reads job files.
type sources struct {
	term           *terminal
	vars, varFiles []string
}

func (s *sources) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.vars, "var", nil, "the value of a variable, as `name=value`; may be repeated")
	cmd.Flags().StringArrayVar(&s.varFiles, "var-file", nil, "a `file` of values of variables; may be repeated")
}

func (s *sources) options() schema.Options {
	return schema.Options{Vars: s.vars, VarFiles: s.varFiles}
}

// load reads job files and shows warnings. The error is schema.Diagnostics if
// the files have errors.
func (s *sources) load(paths []string) (*schema.Config, error) {
	cfg, diags := schema.Load(paths, s.options())
	if diags.HasErrors() {
		return nil, diags
	}
	s.term.diagnostics(diags)
	return cfg, nil
}

// planRequest asks for what the files say and nothing else from below paths.
func planRequest(cfg *schema.Config, paths []string) (api.PlanRequest, error) {
	req := api.PlanRequest{}
	for _, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return req, fmt.Errorf("find %s: %w", p, err)
		}
		req.Paths = append(req.Paths, abs)
	}
	for _, l := range cfg.Jobs {
		req.Jobs = append(req.Jobs, api.JobSource{Job: l.Job, Source: l.Source})
	}
	return req, nil
}
