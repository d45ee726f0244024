package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/control"
	"github.com/synergymesh/meshrun/schema"
	"github.com/synergymesh/meshrun/spec"
)

// jobFiles applies job files when the agent starts and whenever they are saved.
type jobFiles struct {
	backend *control.Node
	paths   []string
	record  func(context.Context, spec.Event)
	logger  hclog.Logger
}

// applyRetries is how often an apply that somebody else has overtaken is
// planned again.
const applyRetries = 5

// run watches the files until the context ends.
func (j *jobFiles) run(ctx context.Context) error {
	for i, p := range j.paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return fmt.Errorf("watch job files: %w", err)
		}
		j.paths[i] = abs
	}
	return schema.Watch(ctx, j.paths, schema.Options{}, schema.WatchOptions{Logger: j.logger}, func(cfg *schema.Config, diags schema.Diagnostics) {
		j.loaded(ctx, cfg, diags)
	})
}

// loaded applies what the files say; broken ones change nothing.
func (j *jobFiles) loaded(ctx context.Context, cfg *schema.Config, diags schema.Diagnostics) {
	if diags.HasErrors() {
		j.refused(ctx, diags.Error())
		j.backend.Problem("jobs", "the job files have errors and change nothing: "+firstLine(diags.Error()))
		return
	}
	req := api.PlanRequest{Paths: j.paths, Who: "agent"}
	for _, l := range cfg.Jobs {
		req.Jobs = append(req.Jobs, api.JobSource{Job: l.Job, Source: l.Source})
	}
	err := j.apply(ctx, req)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		j.refused(ctx, err.Error())
		j.backend.Problem("jobs", "the job files could not be applied: "+firstLine(err.Error()))
		return
	}
	j.backend.Problem("jobs", "")
}

// errNoJobs: a directory without job files is more often one that is not
// mounted, or just being filled, than the wish to stop everything.
var errNoJobs = errors.New("no job file is left, so nothing is changed: stop the last job with `meshrun stop -purge JOB`")

func (j *jobFiles) apply(ctx context.Context, req api.PlanRequest) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var err error
	for range applyRetries {
		var plan spec.Plan
		if plan, err = j.backend.Plan(ctx, req); err != nil {
			return err
		}
		if plan.Empty() {
			return nil
		}
		if len(req.Jobs) == 0 {
			return errNoJobs
		}
		var result api.ApplyResult
		if result, err = j.backend.Apply(ctx, plan); err == nil {
			j.logger.Info("applied job files", "jobs", strings.Join(result.Applied, ","))
			return nil
		}
		if !errors.Is(err, api.ErrStale) {
			return err
		}
	}
	return err
}

func (j *jobFiles) refused(ctx context.Context, message string) {
	j.logger.Error("job files refused; what runs is left as it is", "error", message)
	j.record(ctx, spec.Event{Type: spec.EventJobRefused, Severity: spec.Warning, Who: "agent", Message: message})
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
