package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
)

// engines lists the engines that registered themselves.
type engines struct {
	place
	term *terminal
	json bool
}

func enginesCommand(term *terminal) *cobra.Command {
	c := &engines{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "engines [OPTIONS]",
		Short: "List the engines that have registered themselves",
		Long: "engines lists engines that meshrun did not start: each registers with any agent and stays known as long as it\n" +
			"does so again within its TTL.\n\n" +
			"  curl --unix-socket agent.sock -X PUT http://meshrun/v1/engines/render-1 \\\n" +
			"    -d '{\"kind\": \"renderer\", \"address\": \"10.0.0.9:80\", \"ttl\": \"30s\", \"capabilities\": [\"png\"]}'",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.Run(cmd.Context()) },
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	return cmd
}

// Run prints the engines.
func (c *engines) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	list, err := client.Engines(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.term.json(list)
	}
	if len(list) == 0 {
		return c.term.print("No engine has registered itself. `meshrun engines -help` tells how one does.\n")
	}
	return c.term.print(renderEngines(list, c.term.outStyle, c.term.now()))
}

func renderEngines(list []api.EngineStatus, s style, now time.Time) string {
	var t table
	t.head(s, "ENGINE", "KIND", "ADDRESS", "HEARD", "EXPIRES", "OWNER", "CAPABILITIES")
	for i := range list {
		e := &list[i]
		heard, expires := "-", "-"
		if !e.Beat.IsZero() {
			heard = ago(now.Sub(e.Beat)) + " ago"
		}
		if !e.Expires.IsZero() {
			expires = "in " + ago(e.Expires.Sub(now))
		}
		t.add(cell{text: e.Name}, cell{text: oneLine(e.Kind)}, cell{text: dash(e.Address)}, cell{text: heard, right: true},
			cell{text: expires, right: true}, cell{text: dash(e.Node)}, cell{text: dash(strings.Join(e.Capabilities, ", ")), paint: s.dim})
	}
	return t.String()
}
