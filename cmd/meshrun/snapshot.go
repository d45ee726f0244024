package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
)

// snapshotWhat tells what a snapshot is; all of its commands say so.
const snapshotWhat = "A snapshot is one text file with the whole state: the wanted jobs, all their versions, where their shards are\n" +
	"placed, and what was decided. It holds whatever secrets the jobs hold, so it is written for its owner's eyes\n" +
	"alone (mode 0600). Who is a node and who holds which lock is not in it: those end with their holders. Output is\n" +
	"not in it either: it stays on the nodes."

func snapshotCommand(term *terminal) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot COMMAND",
		Short: "Save the whole state to a file, or restore it",
		Long: snapshotWhat + "\n\nIt is portable: what was saved from one machine's embedded store can be restored into a Consul cluster. A job\n" +
			"whose shards are placed where they ran before goes on without a restart.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	for _, c := range []*cobra.Command{snapshotSaveCommand(term), snapshotRestoreCommand(term), snapshotInspectCommand(term)} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}

// snapshot is any of the three commands.
type snapshot struct {
	place
	term  *terminal
	file  string
	json  bool
	force bool
}

func snapshotSaveCommand(term *terminal) *cobra.Command {
	c := &snapshot{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "save [OPTIONS] FILE",
		Short: "Write the whole state to a file",
		Long:  snapshotWhat,
		Args:  arguments(1, 1, "the name of the file to write"),
		RunE:  func(cmd *cobra.Command, args []string) error { c.file = args[0]; return c.Save(cmd.Context()) },
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.force, "force", false, "write over a file that is there")
	cmd.Flags().BoolVar(&c.json, "json", false, "print what is in it as JSON")
	return cmd
}

func snapshotRestoreCommand(term *terminal) *cobra.Command {
	c := &snapshot{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "restore [OPTIONS] FILE",
		Short: "Write a saved state into one that has no jobs yet",
		Long: "restore writes what `meshrun snapshot save` has saved into a state without jobs: all of it or nothing. What was\n" +
			"wanted is wanted again, and the agents make it so.\n\n" + snapshotWhat,
		Args: arguments(1, 1, "the file that was saved"),
		RunE: func(cmd *cobra.Command, args []string) error { c.file = args[0]; return c.Restore(cmd.Context()) },
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print what was restored as JSON")
	return cmd
}

func snapshotInspectCommand(term *terminal) *cobra.Command {
	c := &snapshot{term: term}
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] FILE",
		Short: "Tell what is in a saved state, and whether it is whole",
		Long:  "inspect needs no agent. It checks the file as restore does.\n\n" + snapshotWhat,
		Args:  arguments(1, 1, "the file that was saved"),
		RunE:  func(_ *cobra.Command, args []string) error { c.file = args[0]; return c.Inspect() },
	}
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	return cmd
}

// Save writes the state to the file, whole or not at all.
func (c *snapshot) Save(ctx context.Context) error {
	if _, err := os.Lstat(c.file); err == nil && !c.force {
		return fmt.Errorf("save snapshot: %s is there already: choose another name, or write over it with -force", c.file)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	// CreateTemp gives the mode 0600.
	f, err := os.CreateTemp(filepath.Dir(c.file), "."+filepath.Base(c.file)+".*")
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	defer os.Remove(f.Name()) // it has another name by then, if all went well
	keys, err := client.SaveSnapshot(ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	// A snapshot that cannot be restored is none.
	if err := c.show(f.Name(), fmt.Sprintf("Saved %s to %s.", count(keys, "key"), c.file)); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), c.file); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// Restore writes the file into the state.
func (c *snapshot) Restore(ctx context.Context) error {
	f, err := os.Open(c.file)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	defer f.Close()
	// What is damaged need not be sent; and the sender says it better.
	if _, err := api.InspectSnapshot(f); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	keys, err := client.RestoreSnapshot(ctx, f)
	if err != nil {
		return err
	}
	if c.json {
		return c.term.json(map[string]int{"keys": keys})
	}
	c.term.say("Restored %s from %s: see `meshrun status`.", count(keys, "key"), c.file)
	return nil
}

// Inspect tells what is in the file.
func (c *snapshot) Inspect() error { return c.show(c.file, "") }

// show reads a snapshot and tells what is in it.
func (c *snapshot) show(path, done string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("inspect snapshot: %w", err)
	}
	defer f.Close()
	contents, err := api.InspectSnapshot(f)
	if err != nil {
		return err
	}
	if c.json {
		return c.term.json(contents)
	}
	if done != "" {
		c.term.say("%s", done)
		return nil
	}
	var t table
	fact := func(name, value string) { t.add(cell{text: name, paint: c.term.outStyle.dim}, cell{text: value}) }
	fact("saved", clock(contents.Created, c.term.now()))
	fact("size", byteCount(uint64(contents.Bytes)))
	fact("keys", strconv.Itoa(contents.Keys))
	for _, kind := range slices.Sorted(maps.Keys(contents.Kinds)) {
		fact("  "+kind, strconv.Itoa(contents.Kinds[kind]))
	}
	fact("jobs", dash(strings.Join(contents.Jobs, ", ")))
	return c.term.print(t.String())
}
