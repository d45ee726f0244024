package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

func completionCommand(term *terminal) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print a script that completes commands, options, and names of jobs",
		Example: "  source <(meshrun completion bash)\n" +
			"  meshrun completion fish > ~/.config/fish/completions/meshrun.fish",
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      arguments(1, 1, "the name of a shell: bash, zsh or fish"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(term.out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(term.out)
			case "fish":
				return cmd.Root().GenFishCompletion(term.out, true)
			default:
				return fmt.Errorf("there is no completion for %q: bash, zsh and fish have one", args[0])
			}
		},
	}
}

// completionTimeout bounds how long a person's Tab may wait.
const completionTimeout = time.Second

// words says which words of a command line are targets, and of which kind.
type words int

const (
	everyWord     words = iota // every argument is a target
	firstWordOnly              // only the first one is
	jobsOnly                   // only the first one is, and it is a job
	processesOnly              // every argument is a job or a process
)

// completeTargets completes the names of jobs, processes and shards with what
// the agent knows.
func completeTargets(p *place, which words) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if (which == firstWordOnly || which == jobsOnly) && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, client, end := p.askForCompletion(cmd)
		defer end()
		if client == nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		jobs, err := client.Jobs(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return targetsLike(jobs, word, which), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

// targetsLike returns the targets that begin with a word, a level at a time:
// jobs first, a job's processes after its slash, shards after the next one.
func targetsLike(jobs []spec.JobVersion, word string, which words) []string {
	var out []string
	for _, v := range jobs {
		name := v.Job.Name
		if !strings.HasPrefix(word, name+"/") || which == jobsOnly {
			out = append(out, name)
			continue
		}
		for _, p := range v.Job.Processes {
			full := name + "/" + p.Name
			if !strings.HasPrefix(word, full+"/") || which == processesOnly {
				out = append(out, full)
				continue
			}
			for shard := range p.Instances() {
				out = append(out, fmt.Sprintf("%s/%d", full, shard))
			}
		}
	}
	return slices.DeleteFunc(out, func(s string) bool { return !strings.HasPrefix(s, word) })
}

// askForCompletion returns a client and a short context to ask for what could
// complete a word, and what ends both; the client is nil if there is none.
func (p *place) askForCompletion(cmd *cobra.Command) (context.Context, *api.Client, func()) {
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	client, err := p.client()
	if err != nil {
		return ctx, nil, cancel
	}
	return ctx, client, func() { client.Close(); cancel() }
}
