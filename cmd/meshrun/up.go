package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/schema"
	"github.com/synergymesh/meshrun/spec"
)

// up is one person's foreground.
type up struct {
	place
	sources
	term  *terminal
	paths []string
	// start starts an agent on the data directory; tests replace it.
	start func(ctx context.Context, dataDir string) (*startedAgent, error)
}

func upCommand(term *terminal) *cobra.Command {
	c := &up{term: term, place: place{term: term}, sources: sources{term: term}, start: startAgent}
	cmd := &cobra.Command{
		Use:   "up [OPTIONS] [PATH…]",
		Short: "Run job files in the foreground, follow edits, stop all on Ctrl-C",
		Long: "up runs what the files in PATH (without one, those of this directory) say, shows what they print, and\n" +
			"follows your edits: save a file, and only what changed is touched. Ctrl-C stops all of it in reverse\n" +
			"order; a second Ctrl-C kills what is left. If up itself is killed, everything goes on, and the next up\n" +
			"takes over.",
		Example: "  meshrun up examples/quickstart",
		RunE: func(cmd *cobra.Command, args []string) error {
			c.paths = args
			return c.Run(cmd.Context())
		},
	}
	c.place.flags(cmd)
	c.sources.flags(cmd)
	return cmd
}

// Run runs until a signal comes: SIGINT, SIGTERM or SIGHUP. The second one
// kills what has not stopped yet, the third one gives up.
func (c *up) Run(ctx context.Context) error {
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	return c.run(ctx, signals)
}

func (c *up) run(ctx context.Context, signals <-chan os.Signal) error {
	if len(c.paths) == 0 {
		c.paths = []string{"."}
	}
	if err := c.check(); err != nil {
		return err
	}
	stop, force, quit := stages(ctx, signals)
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	info, own, err := c.ensureAgent(stop, client)
	if err != nil {
		if stop.Err() != nil {
			return nil
		}
		return err
	}
	s := newUpSession(c, client, info)
	s.own = s.own || own
	defer s.close()
	c.banner(info, own)
	err = schema.Watch(stop, c.paths, c.options(), schema.WatchOptions{}, func(cfg *schema.Config, diags schema.Diagnostics) {
		s.loaded(stop, cfg, diags)
	})
	if err != nil {
		c.term.errorf("%v", err)
	}
	return errors.Join(err, s.end(force, quit))
}

// check reads the files before anything is started for them.
func (c *up) check() error {
	cfg, diags := schema.Load(c.paths, c.options())
	if diags.HasErrors() {
		return diags
	}
	if len(cfg.Jobs) == 0 {
		return fmt.Errorf("no job is defined in %s: write one into a file that ends with .hcl, as examples/quickstart does", strings.Join(c.paths, ", "))
	}
	return nil
}

// stages turns signals into the ends of contexts: the first one asks to stop,
// the second one to kill, the third one to give up.
func stages(ctx context.Context, signals <-chan os.Signal) (stop, force, quit context.Context) {
	stop, cancelStop := context.WithCancel(ctx)
	force, cancelForce := context.WithCancel(context.WithoutCancel(ctx))
	quit, cancelQuit := context.WithCancel(context.WithoutCancel(ctx))
	go func() { // ends with the third signal, or with the process
		for _, cancel := range []context.CancelFunc{cancelStop, cancelForce, cancelQuit} {
			<-signals
			cancel()
		}
	}()
	return stop, force, quit
}

// ensureAgent returns an agent that is ready, and starts one if there is none.
func (c *up) ensureAgent(ctx context.Context, client *api.Client) (info api.Info, own bool, err error) {
	info, err = client.Ready(ctx)
	if err == nil || !passing(err) {
		return info, false, err
	}
	if addr := c.term.lookup("MESHRUN_ADDR"); addr != "" && c.dir == "" {
		return info, false, fmt.Errorf("%w (MESHRUN_ADDR names it; unset that to let up start one)", err)
	}
	dir, err := c.dataDir()
	if err != nil {
		return info, false, err
	}
	started, err := c.start(ctx, dir)
	if err != nil {
		return info, false, err
	}
	info, err = started.ready(ctx, client)
	return info, err == nil, err
}

// banner says what begins, and what to do next.
func (c *up) banner(info api.Info, own bool) {
	s := c.term.errStyle
	agent := "agent pid %d was there already"
	if own {
		agent = "agent pid %d, started for you"
	}
	facts := []string{"node " + info.Node, fmt.Sprintf(agent, info.PID), "data in " + info.DataDir}
	c.term.say("%s %s", s.bold("meshrun "+info.Version), s.dim("· "+strings.Join(facts, " · ")))
	for _, p := range info.Problems {
		c.term.say("%s%s", s.red("! "), oneLine(p))
	}
}

// hints tells a newcomer what to try, once the first files are applied.
func (c *up) hints(jobs []schema.Loaded) {
	s := c.term.errStyle
	self, where := "meshrun", ""
	if len(os.Args) > 0 && strings.ContainsRune(os.Args[0], filepath.Separator) {
		self = os.Args[0]
	}
	if c.dir != "" {
		where = " -data-dir " + c.dir
	}
	c.term.say("")
	c.term.say("%s %s: edit and save, and only what changed is touched", s.bold("watching"), strings.Join(c.paths, ", "))
	if len(jobs) > 0 {
		c.term.say("%s", s.dim(fmt.Sprintf("in another terminal: %s status -watch%s · %s logs -f%s %s · %s events -f%s",
			self, where, self, where, jobs[0].Job.Name, self, where)))
	}
	c.term.say("%s", s.dim("Ctrl-C stops everything"))
	c.term.say("")
}

// stopLimit bounds how long instances may take to stop by their own rules.
const stopLimit = 10 * time.Minute

// applyFiles plans and applies what files say, again if somebody else's change
// came in between. It returns the plan that was applied.
func (c *up) applyFiles(ctx context.Context, client *api.Client, req api.PlanRequest) (spec.Plan, error) {
	var p spec.Plan
	var err error
	for range maxRetries {
		if p, err = client.Plan(ctx, req); err != nil || p.Empty() {
			return p, err
		}
		if _, err = client.Apply(ctx, p); !errors.Is(err, api.ErrStale) {
			return p, err
		}
	}
	return p, err
}
