package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/spec"
)

// history lists the versions of a job.
type history struct {
	place
	term *terminal
	job  string
	json bool
}

func historyCommand(term *terminal) *cobra.Command {
	c := &history{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:               "history [OPTIONS] JOB",
		Short:             "List a job's versions: who, when, and what changed",
		Args:              arguments(1, 1, "the name of a job"),
		ValidArgsFunction: completeTargets(&c.place, jobsOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.job = args[0]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	return cmd
}

// Run prints the versions, the oldest first.
func (c *history) Run(ctx context.Context) error {
	if err := wholeJob("history", c.job); err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	versions, err := client.History(ctx, c.job)
	if err != nil {
		return err
	}
	if c.json {
		return c.term.json(versions)
	}
	return c.term.print(renderHistory(versions, c.term.outStyle, c.term.now()))
}

func renderHistory(versions []spec.JobVersion, s style, now time.Time) string {
	var t table
	t.head(s, "VERSION", "WHEN", "WHO", "WHY", "CHANGED")
	var before *spec.Job
	for i := range versions {
		v := &versions[i]
		t.add(cell{text: strconv.FormatUint(v.Version, 10), right: true}, cell{text: clock(v.When, now)},
			cell{text: v.Who}, cell{text: v.Why}, cell{text: changedText(before, v), paint: s.dim})
		before = &v.Job
	}
	return t.String()
}

// maxChanged is how many changed fields are named.
const maxChanged = 4

// changedText names what a version changed.
func changedText(before *spec.Job, v *spec.JobVersion) string {
	if before == nil {
		return fmt.Sprintf("%s with %s", v.Job.Name, count(len(v.Job.Processes), "process"))
	}
	changes := spec.Diff(before, &v.Job)
	var parts []string
	last := ""
	for _, c := range changes {
		text := c.Process + "." + c.Path
		switch {
		case c.Process == "":
			text = c.Path
		case c.Effect == spec.EffectNone && !c.OldSet:
			text = "+ " + c.Process
		case c.Effect == spec.EffectNone:
			text = "- " + c.Process
		}
		if text != last {
			parts = append(parts, text)
		}
		last = text
	}
	if len(parts) > maxChanged {
		parts = append(parts[:maxChanged], fmt.Sprintf("%d more", len(parts)-maxChanged))
	}
	return strings.Join(parts, ", ")
}
