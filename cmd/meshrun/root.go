package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The groups that the help shows commands in.
const (
	groupFiles = "files"
	groupLook  = "look"
	groupAct   = "act"
	groupNode  = "node"
	groupMesh  = "mesh"
)

// newRoot returns the command line of meshrun.
func newRoot(term *terminal) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshrun COMMAND",
		Short: "Keep processes running the way HCL files say",
		Long: "meshrun keeps processes running the way HCL files say.\n\n" +
			"Begin with `meshrun up PATH`: it runs what the files in PATH say, shows what they print, follows\n" +
			"your edits, and stops everything on Ctrl-C.",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.DisableFlagsInUseLine = true
	root.SuggestionsMinimumDistance = 2
	root.SetIn(term.in)
	root.SetOut(term.out)
	root.SetErr(term.err)
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(helpCommand())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{err: singleDash(err), command: cmd.CommandPath()}
	})
	root.AddGroup(
		&cobra.Group{ID: groupFiles, Title: "Work with job files:"},
		&cobra.Group{ID: groupLook, Title: "Look at what runs:"},
		&cobra.Group{ID: groupAct, Title: "Act on what runs:"},
		&cobra.Group{ID: groupMesh, Title: "Work with several nodes:"},
		&cobra.Group{ID: groupNode, Title: "Run a node:"},
	)
	for group, commands := range map[string][]*cobra.Command{
		groupFiles: {upCommand(term), planCommand(term), applyCommand(term), validateCommand(term), fmtCommand(term), schemaCommand(term)},
		groupLook:  {statusCommand(term), logsCommand(term), eventsCommand(term), historyCommand(term), runsCommand(term)},
		groupAct: {runCommand(term), restartCommand(term), stopCommand(term), scaleCommand(term), signalCommand(term), rollbackCommand(term),
			pauseCommand(term), resumeCommand(term), promoteCommand(term), revertCommand(term)},
		groupMesh: {nodesCommand(term), drainCommand(term), leaderCommand(term), enginesCommand(term), snapshotCommand(term)},
		groupNode: {agentCommand(term), upgradeCommand(term), versionCommand(term), completionCommand(term)},
	} {
		for _, c := range commands {
			c.GroupID = group
			c.DisableFlagsInUseLine = true
			root.AddCommand(c)
		}
	}
	root.SetUsageFunc(usage)
	return root
}

// unknownCommand says what might have been meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("no command named %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		text += fmt.Sprintf("; did you mean %q?", near[0])
	}
	return &usageError{err: errors.New(text), command: cmd.CommandPath()}
}

// helpCommand says what -help says; people of many tools try it first.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Tell how a command is used", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || (len(rest) > 0 && about == cmd.Root()) {
				return unknownCommand(cmd.Root(), args[0])
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	}
}

// singleDash writes flags in an error as people of these tools write them.
func singleDash(err error) error {
	return errors.New(strings.ReplaceAll(err.Error(), "--", "-"))
}

// arguments checks how many arguments there are; most is negative for no limit.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return &usageError{err: fmt.Errorf("%s needs %s", cmd.Name(), what), command: cmd.CommandPath()}
		case most >= 0 && len(args) > most:
			return &usageError{err: fmt.Errorf("%q is one argument too many", args[most]), command: cmd.CommandPath()}
		}
		return nil
	}
}

// usage tells how a command is used, with flags as people of these tools write
// them.
func usage(cmd *cobra.Command) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n", cmd.UseLine())
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", cmd.Example)
	}
	for _, g := range cmd.Groups() {
		fmt.Fprintf(&b, "\n%s\n", g.Title)
		for _, c := range cmd.Commands() {
			if c.GroupID == g.ID && c.IsAvailableCommand() {
				fmt.Fprintf(&b, "  %-*s %s\n", c.NamePadding(), c.Name(), c.Short)
			}
		}
	}
	if len(cmd.Groups()) == 0 && cmd.HasAvailableSubCommands() {
		b.WriteString("\nCommands:\n")
		for _, c := range cmd.Commands() {
			fmt.Fprintf(&b, "  %-*s %s\n", c.NamePadding(), c.Name(), c.Short)
		}
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "\n`%s COMMAND -help` tells more about a command.\n", cmd.CommandPath())
	} else {
		b.WriteString("\nOptions (one dash or two):\n" + flagUsages(cmd))
	}
	_, err := io.WriteString(cmd.OutOrStderr(), b.String())
	return err
}

func flagUsages(cmd *cobra.Command) string {
	var t table
	t.indent = "  "
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, text := pflag.UnquoteUsage(f)
		name := "-" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if f.Value.Type() != "bool" {
			name += " " + strings.ToUpper(value)
		}
		t.add(cell{text: name}, cell{text: text})
	})
	return t.String()
}
