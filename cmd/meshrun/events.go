package main

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// events shows what happened.
type events struct {
	place
	term         *terminal
	target       string // "" for all
	since        string
	types        []string
	follow, json bool
}

func eventsCommand(term *terminal) *cobra.Command {
	c := &events{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "events [OPTIONS] [JOB[/PROCESS[/SHARD]]]",
		Short: "Show what happened and what was decided",
		Long: "events shows what instances did and what was decided about their jobs, the oldest first. With a process\n" +
			"or a shard, only what its instances did: what is decided is decided about the job.",
		Example: "  meshrun events -since 1h\n  meshrun events -f -type instance.exited,instance.exhausted\n" +
			"  meshrun events -type job. shop        # every decision about one job",
		Args:              arguments(0, 1, ""),
		ValidArgsFunction: completeTargets(&c.place, firstWordOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				c.target = args[0]
			}
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVarP(&c.follow, "follow", "f", false, "go on with what happens from now on")
	cmd.Flags().StringVar(&c.since, "since", "", "only what happened since: \"5m\" ago, \"15:04\", or a date and time")
	cmd.Flags().StringSliceVar(&c.types, "type", nil, "only events of these `types`; \"instance.\" means all that begin so")
	cmd.Flags().BoolVar(&c.json, "json", false, "print a JSON value per line")
	return cmd
}

// Run prints events until there are no more, or with follow until the context
// ends.
func (c *events) Run(ctx context.Context) error {
	since, err := parseSince(c.since, c.term.now())
	if err != nil {
		return err
	}
	target := api.Target{Shard: -1}
	if c.target != "" {
		if target, err = api.ParseTarget(c.target); err != nil {
			return err
		}
	}
	query := api.EventQuery{Since: since, Job: target.Job, Follow: c.follow}
	for _, t := range c.types {
		query.Types = append(query.Types, spec.EventType(t))
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	if c.target != "" {
		if err := everThere(ctx, client, target); err != nil {
			return err
		}
	}
	print := func(ev spec.Event) error { return c.term.print(c.line(&ev)) }
	if c.json {
		print = func(ev spec.Event) error { return c.term.jsonLine(ev) }
	}
	if target.Process != "" {
		show := print
		print = func(ev spec.Event) error {
			if ev.Instance == nil || !target.Matches(ev.Instance.ID) {
				return nil
			}
			return show(ev)
		}
	}
	if !c.follow {
		return c.term.warnPartial(client.Events(ctx, query, print))
	}
	err = followEvents(ctx, client, query, print)
	if ctx.Err() != nil {
		return nil // Ctrl-C is how following ends
	}
	return err
}

// errFound ends a search.
var errFound = errors.New("found")

// everThere returns an error that says so if the target is in no version of its
// job, and nothing ever happened to it either.
func everThere(ctx context.Context, client *api.Client, target api.Target) error {
	versions, unknown := client.History(ctx, target.Job)
	if unknown != nil && !errors.Is(unknown, api.ErrNotFound) {
		return nil // what instances did can be told nonetheless
	}
	if unknown == nil && wanted(versions, target) {
		return nil
	}
	err := client.Events(ctx, api.EventQuery{Job: target.Job}, func(ev spec.Event) error {
		if target.Process == "" || (ev.Instance != nil && target.Matches(ev.Instance.ID)) {
			return errFound
		}
		return nil
	})
	switch {
	case err != nil: // found, or for who asks for the events to tell
		return nil
	case unknown != nil:
		return unknown
	}
	return api.Errorf(api.ErrNotFound, "no %s was ever defined: `meshrun status %s` lists what there is", named(target), target.Job)
}

// followEvents follows events across restarts of the agent.
func followEvents(ctx context.Context, client *api.Client, query api.EventQuery, each func(spec.Event) error) error {
	var away absence
	for {
		err := client.Events(ctx, query, func(ev spec.Event) error {
			away.ended()
			if ev.ID != "" {
				query.After = ev.ID
			}
			return each(ev)
		})
		if err == nil || !passing(err) {
			return err
		}
		if err := away.wait(ctx, err); err != nil {
			return err
		}
	}
}

// typeWidth is how wide most types are.
const typeWidth = 22

// line tells an event in one line.
func (c *events) line(ev *spec.Event) string {
	s := c.term.outStyle
	paint := s.dim
	switch ev.Severity {
	case spec.Warning:
		paint = s.yellow
	case spec.Critical:
		paint = s.red
	}
	name := string(ev.Type)
	name += strings.Repeat(" ", max(0, typeWidth-utf8.RuneCountInString(name)))
	text := oneLine(ev.Message)
	if ev.Instance != nil && !strings.Contains(text, ev.Instance.ID.String()) {
		text = ev.Instance.ID.String() + "  " + text
	} else if ev.Instance == nil && ev.Job != "" && !strings.Contains(text, ev.Job) {
		text = ev.Job + "  " + text
	}
	who := ""
	if ev.Who != "" && ev.Who != "watchdog" && ev.Who != "agent" {
		who = s.dim("  by " + ev.Who)
	}
	return s.dim(clock(ev.Time, c.term.now())) + "  " + paint(name) + "  " + text + who + "\n"
}
