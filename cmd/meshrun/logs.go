package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// logs shows what instances print.
type logs struct {
	place
	term                     *terminal
	target, since, grep      string
	last                     int
	follow, json, timestamps bool
}

func logsCommand(term *terminal) *cobra.Command {
	c := &logs{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:               "logs [OPTIONS] JOB[/PROCESS[/SHARD]]",
		Short:             "Show what a job, a process or one shard prints",
		Example:           "  meshrun logs -f shop\n  meshrun logs -since 10m -grep 'error|warn' shop/web/2",
		Args:              arguments(1, 1, "whose output: JOB, JOB/PROCESS or JOB/PROCESS/SHARD"),
		ValidArgsFunction: completeTargets(&c.place, firstWordOnly),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.target = args[0]
			return c.Run(cmd.Context())
		},
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVarP(&c.follow, "follow", "f", false, "go on with what is printed from now on")
	cmd.Flags().StringVar(&c.since, "since", "", "only what was printed since: \"5m\" ago, \"15:04\", or a date and time")
	cmd.Flags().IntVarP(&c.last, "lines", "n", 0, "only the last `N` lines of each instance")
	cmd.Flags().StringVar(&c.grep, "grep", "", "only lines that match a regular `expression` (RE2)")
	cmd.Flags().BoolVarP(&c.timestamps, "timestamps", "t", false, "show when each line was printed")
	cmd.Flags().BoolVar(&c.json, "json", false, "print a JSON value per line")
	return cmd
}

// Run prints lines until there are no more, or with follow until the context
// ends.
func (c *logs) Run(ctx context.Context) error {
	query, err := c.query()
	if err != nil {
		return err
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	print := newLogPrinter(c.term, c.timestamps).print
	if c.json {
		print = func(line spec.LogLine) error { return c.term.jsonLine(line) }
	}
	if !c.follow {
		return c.term.warnPartial(client.Logs(ctx, query, print))
	}
	err = followLogs(ctx, client, query, print)
	if ctx.Err() != nil {
		return nil // Ctrl-C is how following ends
	}
	return err
}

func (c *logs) query() (spec.LogQuery, error) {
	target, err := api.ParseTarget(c.target)
	if err != nil {
		return spec.LogQuery{}, err
	}
	since, err := parseSince(c.since, c.term.now())
	if err != nil {
		return spec.LogQuery{}, err
	}
	if c.last < 0 {
		return spec.LogQuery{}, fmt.Errorf("-n %d: the number of lines is negative", c.last)
	}
	if _, err := regexp.Compile(c.grep); err != nil {
		return spec.LogQuery{}, fmt.Errorf("-grep: %w", err)
	}
	return spec.LogQuery{
		Job: target.Job, Process: target.Process, Shard: target.Shard,
		Since: since, Last: c.last, Grep: c.grep, Follow: c.follow,
	}, nil
}

// followLogs follows output across restarts of the agent.
func followLogs(ctx context.Context, client *api.Client, query spec.LogQuery, each func(spec.LogLine) error) error {
	var resume api.LogResume
	var away absence
	for {
		err := client.Logs(ctx, resume.Query(query), func(line spec.LogLine) error {
			away.ended()
			if !resume.Fresh(&line) {
				return nil
			}
			return each(line)
		})
		if err == nil || !passing(err) {
			return err
		}
		if err := away.wait(ctx, err); err != nil {
			return err
		}
	}
}

// logPrinter prints lines with the name of their instance before them, in the
// instance's colour.
type logPrinter struct {
	term       *terminal
	timestamps bool

	mu     sync.Mutex // guards what is below
	colors map[spec.InstanceID]int
	width  int
	jobs   bool // names begin with the job's
}

func newLogPrinter(term *terminal, timestamps bool) *logPrinter {
	return &logPrinter{term: term, timestamps: timestamps, colors: map[spec.InstanceID]int{}, width: 8}
}

func (p *logPrinter) print(line spec.LogLine) error {
	s := p.term.outStyle
	text := line.Text
	if p.term.live {
		text = plain(text)
	}
	if line.Stream == "stderr" {
		text = s.paint("31", "▏") + text
		if !s.on {
			text = line.Text
		}
	}
	stamp := ""
	if p.timestamps {
		stamp = s.dim(line.Time.Local().Format("2006-01-02T15:04:05.000Z07:00")) + " "
	}
	return p.term.print(p.prefix(line.ID, s) + stamp + text + "\n")
}

// prefix returns an instance's name in its colour, aligned with the others
// that were seen.
func (p *logPrinter) prefix(id spec.InstanceID, s style) string {
	name := id.Process + "/" + strconv.Itoa(id.Shard)
	p.mu.Lock()
	if p.jobs {
		name = id.String()
	}
	n, known := p.colors[id]
	if !known {
		n = len(p.colors)
		p.colors[id] = n
	}
	p.width = max(p.width, utf8.RuneCountInString(name))
	width := p.width
	p.mu.Unlock()
	return s.instance(n, fmt.Sprintf("%-*s |", width, name)) + " "
}

// showJobs makes names begin with the job's, for output of several jobs.
func (p *logPrinter) showJobs(show bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.jobs = show
}
