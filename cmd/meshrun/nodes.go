package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// nodes lists the nodes of the cluster.
type nodes struct {
	place
	term *terminal
	json bool
}

func nodesCommand(term *terminal) *cobra.Command {
	c := &nodes{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "nodes [OPTIONS]",
		Short: "List the nodes: state, instances, roles",
		Long: "nodes lists the nodes of the cluster. A node is draining if it gives its shards to others, and gone if it is\n" +
			"not there and something is still known of it. Its roles are: primary (its scheduler decides), control (how\n" +
			"many of the control shards it owns), exclusive (how many exclusive shards' locks it holds). What the resources\n" +
			"of its shards come to is shown where a node's configuration bounds it (cpu, memory).",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.Run(cmd.Context()) },
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	return cmd
}

// Run prints the nodes.
func (c *nodes) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return err
	}
	if c.json {
		return c.term.json(cluster.Nodes)
	}
	return c.term.print(renderNodes(cluster.Nodes, c.term.outStyle, c.term.now()))
}

// renderNodes returns a table of the nodes. Columns that would be empty for all
// are left out.
func renderNodes(list []api.NodeStatus, s style, now time.Time) string {
	any := func(has func(*api.NodeStatus) bool) bool {
		return slices.ContainsFunc(list, func(n api.NodeStatus) bool { return has(&n) })
	}
	aged := any(func(n *api.NodeStatus) bool { return !n.Since.IsZero() })
	labelled := any(func(n *api.NodeStatus) bool { return len(n.Labels) > 0 })
	bounded := any(func(n *api.NodeStatus) bool { return n.CPU > 0 || n.Memory > 0 })
	titles := []string{"NODE", "STATE", "ADDRESS", "VERSION", "INSTANCES"}
	if bounded {
		titles = append(titles, "CPU", "MEMORY")
	}
	if aged {
		titles = append(titles, "SESSION")
	}
	titles = append(titles, "ROLES")
	if labelled {
		titles = append(titles, "LABELS")
	}
	var t table
	t.head(s, titles...)
	for i := range list {
		n := &list[i]
		cells := []cell{
			{text: n.Name}, {text: string(n.State), paint: nodePaint(n.State, s)}, {text: dash(n.Address)}, {text: dash(n.Version)},
			{text: strconv.Itoa(n.Instances), right: true},
		}
		if bounded {
			cells = append(cells, cell{text: ofBound(cores(n.Reserved.CPU), n.CPU > 0, cores(n.CPU)), right: true},
				cell{text: ofBound(n.Reserved.Memory.String(), n.Memory > 0, n.Memory.String()), right: true})
		}
		if aged {
			age := "-"
			if !n.Since.IsZero() {
				age = ago(now.Sub(n.Since))
			}
			cells = append(cells, cell{text: age, right: true})
		}
		cells = append(cells, cell{text: rolesText(n)})
		if labelled {
			cells = append(cells, cell{text: labelsText(n.Labels), paint: s.dim})
		}
		t.add(cells...)
	}
	return t.String()
}

// ofBound tells what is taken of how much there is, "3GiB of 8GiB".
func ofBound(taken string, bounded bool, bound string) string {
	if !bounded {
		return taken
	}
	return taken + " of " + bound
}

func cores(n float64) string { return strconv.FormatFloat(math.Round(n*1000)/1000, 'f', -1, 64) }

func nodePaint(state api.NodeState, s style) func(string) string {
	switch state {
	case api.NodeDraining:
		return s.yellow
	case api.NodeGone:
		return s.red
	}
	return nil
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return oneLine(text)
}

// rolesText tells what a node decides: "primary, control 5, exclusive 2".
func rolesText(n *api.NodeStatus) string {
	var parts []string
	if n.Primary {
		parts = append(parts, "primary")
	}
	if k := len(n.ControlShards); k > 0 {
		parts = append(parts, fmt.Sprintf("control %d", k))
	}
	if k := len(n.Exclusive); k > 0 {
		parts = append(parts, fmt.Sprintf("exclusive %d", k))
	}
	return dash(strings.Join(parts, ", "))
}

func labelsText(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for k, v := range labels {
		parts = append(parts, k+"="+v)
	}
	slices.Sort(parts)
	return oneLine(strings.Join(parts, " "))
}

// leader tells who decides what.
type leader struct {
	place
	term *terminal
	json bool
}

func leaderCommand(term *terminal) *cobra.Command {
	c := &leader{term: term, place: place{term: term}}
	cmd := &cobra.Command{
		Use:   "leader [OPTIONS]",
		Short: "Show which node schedules, and which own the control shards",
		Long: "leader tells which node is the primary scheduler, which decides where shards run, and which nodes own the\n" +
			"control shards: every job belongs to one, and its owner decides when the job's shards start and stop.",
		Args: arguments(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return c.Run(cmd.Context()) },
	}
	c.place.remote(cmd)
	cmd.Flags().BoolVar(&c.json, "json", false, "print as JSON")
	return cmd
}

// leaderView is what leader prints; its JSON is what -json prints.
type leaderView struct {
	Primary       string   `json:"primary"`
	ControlShards []string `json:"control_shards"`
}

// Run prints who decides.
func (c *leader) Run(ctx context.Context) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	cluster, err := client.Cluster(ctx)
	if err != nil {
		return err
	}
	view := leaderView{Primary: cluster.Primary, ControlShards: cluster.ControlShards}
	if c.json {
		return c.term.json(view)
	}
	return c.term.print(renderLeader(view, c.term.outStyle))
}

func renderLeader(v leaderView, s style) string {
	owned := map[string][]int{}
	for n, node := range v.ControlShards {
		owned[node] = append(owned[node], n)
	}
	t := table{}
	t.head(s, "ROLE", "SHARDS", "NODE")
	name := func(node string) cell {
		if node == "" {
			return cell{text: "nobody now", paint: s.red}
		}
		return cell{text: node}
	}
	t.add(cell{text: "scheduler"}, cell{text: "-"}, name(v.Primary))
	owners := make([]string, 0, len(owned))
	for node := range owned {
		owners = append(owners, node)
	}
	slices.SortFunc(owners, func(a, b string) int { return owned[a][0] - owned[b][0] })
	for _, node := range owners {
		t.add(cell{text: "orchestrator"}, cell{text: spec.NewShardSet(owned[node]...).String()}, name(node))
	}
	return t.String()
}
