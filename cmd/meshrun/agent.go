package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/agent"
	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/spec"
)

// runAgent is `meshrun agent`.
type runAgent struct {
	place
	term     *terminal
	config   string
	node     string
	jobs     []string
	logLevel string
	consul   string
	fromUp   bool
	// run is agent.Run; tests replace it.
	run func(context.Context, agent.Config) error
}

// agentFile is the configuration file of an agent. What the command line says
// goes before it.
type agentFile struct {
	Node     string            `hcl:"node,optional"`
	DataDir  string            `hcl:"data_dir,optional"`
	Jobs     []string          `hcl:"jobs,optional"`
	LogLevel string            `hcl:"log_level,optional"`
	Labels   map[string]string `hcl:"labels,optional"`
	Weight   float64           `hcl:"weight,optional"`
	Capacity int               `hcl:"capacity,optional"`
	CPU      float64           `hcl:"cpu,optional"`
	Memory   string            `hcl:"memory,optional"`
	Consul   *consulBlock      `hcl:"consul,block"`
	Peers    *peersBlock       `hcl:"peers,block"`
}

// consulBlock makes the agent a member of the cluster on a Consul. What it
// leaves out is read from the environment, as Consul's own tools do.
type consulBlock struct {
	Address    string `hcl:"address,optional"`
	Token      string `hcl:"token,optional"`
	Datacenter string `hcl:"datacenter,optional"`
	Prefix     string `hcl:"prefix,optional"`
	CAFile     string `hcl:"ca_file,optional"`
	CertFile   string `hcl:"cert_file,optional"`
	KeyFile    string `hcl:"key_file,optional"`
	Fence      string `hcl:"fence,optional"`
}

// peersBlock says how this agent and the others of its cluster talk.
type peersBlock struct {
	Listen   string `hcl:"listen,optional"`
	CAFile   string `hcl:"ca_file,optional"`
	CertFile string `hcl:"cert_file,optional"`
	KeyFile  string `hcl:"key_file,optional"`
}

// fromUpFlag marks an agent that `meshrun up` has started, and that the last
// `up` ends.
const fromUpFlag = "from-up"

func agentCommand(term *terminal) *cobra.Command {
	c := &runAgent{term: term, place: place{term: term}, run: agent.Run}
	cmd := &cobra.Command{
		Use:   "agent [OPTIONS]",
		Short: "Run a node: watchdog, store and API",
		Long: "agent runs a node. It puts itself under a watchdog, and each of the two brings the other one back; what\n" +
			"they run goes on whichever of them dies. With -jobs it applies a directory whenever a file in it is saved.\n\n" +
			"With -consul, or a consul block in its configuration file, it is one of several nodes that share what is\n" +
			"wanted: Consul holds their state and their locks.\n\n" +
			"A configuration file is HCL: node, data_dir, jobs (a list), log_level, labels (a map), weight, capacity (most\n" +
			"instances), cpu and memory (most that the resources of all instances may come to), and\n" +
			"consul { address, token, datacenter, prefix, ca_file, cert_file, key_file, fence } and\n" +
			"peers { listen, ca_file, cert_file, key_file }.",
		Example: "  meshrun agent -jobs /etc/meshrun/jobs\n  meshrun agent -consul 127.0.0.1:8500\n  meshrun agent -config /etc/meshrun/agent.hcl",
		Args:    arguments(0, 0, ""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.Run(cmd.Context()) },
	}
	c.place.flags(cmd)
	cmd.Flags().StringVar(&c.config, "config", "", "a `file` that says the same as these options")
	cmd.Flags().StringVar(&c.node, "node", "", "the node's `name`; else the host's")
	cmd.Flags().StringArrayVar(&c.jobs, "jobs", nil, "a `directory` or file to apply and to watch; may be repeated")
	cmd.Flags().StringVar(&c.logLevel, "log-level", "", "trace, debug, info, warn or error; else info")
	cmd.Flags().StringVar(&c.consul, "consul", "", "the `address` of this machine's Consul agent: makes the node one of a cluster")
	cmd.Flags().BoolVar(&c.fromUp, fromUpFlag, false, "")
	cmd.Flags().Lookup(fromUpFlag).Hidden = true
	return cmd
}

// Run runs the node until it is told to end.
func (c *runAgent) Run(ctx context.Context) error {
	cfg, err := c.resolve()
	if err != nil {
		return err
	}
	cfg.Args = c.commandLine(&cfg)
	return c.run(ctx, cfg)
}

// resolve reads the configuration file and puts the options over it.
func (c *runAgent) resolve() (agent.Config, error) {
	var file agentFile
	cfg := agent.Config{Version: thisBuild().Version}
	if c.config != "" {
		var err error
		if file, err = readAgentFile(c.config); err != nil {
			return cfg, err
		}
		if c.config, err = filepath.Abs(c.config); err != nil {
			return cfg, fmt.Errorf("find configuration: %w", err)
		}
	}
	if c.dir == "" {
		c.dir = file.DataDir
	}
	var err error
	if cfg.DataDir, err = c.dataDir(); err != nil {
		return cfg, err
	}
	for _, j := range c.jobs {
		abs, err := filepath.Abs(j)
		if err != nil {
			return cfg, fmt.Errorf("find jobs: %w", err)
		}
		cfg.Jobs = append(cfg.Jobs, abs)
	}
	if len(cfg.Jobs) == 0 {
		cfg.Jobs = file.Jobs
	}
	cfg.Node, cfg.Labels, cfg.Weight = firstOf(c.node, file.Node), maps.Clone(file.Labels), file.Weight
	cfg.Capacity, cfg.CPU = file.Capacity, file.CPU
	if file.Memory != "" {
		if cfg.Memory, err = spec.ParseSize(file.Memory); err != nil {
			return cfg, fmt.Errorf("read configuration %s: memory: %w", c.config, err)
		}
	}
	for what, value := range map[string]float64{"capacity": float64(cfg.Capacity), "weight": cfg.Weight, "cpu": cfg.CPU} {
		if value < 0 {
			return cfg, fmt.Errorf("read configuration %s: %s is %v: it must not be negative", c.config, what, value)
		}
	}
	if cfg.Cluster, err = c.cluster(file.Consul); err != nil {
		return cfg, err
	}
	if p := file.Peers; p != nil && cfg.Cluster != nil {
		cfg.Cluster.Listen = p.Listen
		cfg.Cluster.Certificates = api.CertificateFiles{CAFile: p.CAFile, CertFile: p.CertFile, KeyFile: p.KeyFile}
	}
	c.logLevel = firstOf(c.logLevel, file.LogLevel, "info")
	cfg.Logger, err = newLogger(c.term, c.logLevel)
	return cfg, err
}

// Bounds of a fence: Consul allows a lock delay of a minute at most, and below
// five seconds a lost packet would end exclusive shards.
const (
	minFence = 5 * time.Second
	maxFence = 50 * time.Second
)

// cluster returns how Consul is reached; nil if the node is on its own.
func (c *runAgent) cluster(file *consulBlock) (*agent.Cluster, error) {
	if file == nil && c.consul == "" {
		return nil, nil
	}
	if file == nil {
		return &agent.Cluster{Address: c.consul}, nil
	}
	cluster := &agent.Cluster{
		Address: firstOf(c.consul, file.Address), Token: file.Token, Datacenter: file.Datacenter, Prefix: file.Prefix,
		CAFile: file.CAFile, CertFile: file.CertFile, KeyFile: file.KeyFile,
	}
	if file.Fence != "" {
		fence, err := time.ParseDuration(file.Fence)
		if err != nil || fence < minFence || fence > maxFence {
			return nil, fmt.Errorf("read configuration %s: fence is %q: write a duration from %v to %v, such as \"5s\"", c.config, file.Fence, minFence, maxFence)
		}
		cluster.Fence = fence
	}
	return cluster, nil
}

// commandLine returns the arguments that mean this configuration in any
// directory and environment.
func (c *runAgent) commandLine(cfg *agent.Config) []string {
	args := []string{"agent", "-data-dir", cfg.DataDir}
	if c.config != "" {
		args = append(args, "-config", c.config)
	}
	if c.node != "" {
		args = append(args, "-node", c.node)
	}
	if len(c.jobs) > 0 {
		for _, j := range cfg.Jobs {
			args = append(args, "-jobs", j)
		}
	}
	args = append(args, "-log-level", c.logLevel)
	if c.consul != "" {
		args = append(args, "-consul", c.consul)
	}
	if c.fromUp {
		args = append(args, "-"+fromUpFlag)
	}
	return args
}

// readAgentFile reads a configuration file. Relative paths in it begin at its
// directory; what it does not know is an error.
func readAgentFile(path string) (agentFile, error) {
	var file agentFile
	src, err := os.ReadFile(path)
	if err != nil {
		return file, fmt.Errorf("read configuration: %w", err)
	}
	parsed, diags := hclsyntax.ParseConfig(src, path, hcl.InitialPos)
	if !diags.HasErrors() {
		diags = gohcl.DecodeBody(parsed.Body, nil, &file)
	}
	if diags.HasErrors() {
		return file, fmt.Errorf("read configuration: %w", diags)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return file, fmt.Errorf("read configuration: %w", err)
	}
	absolute := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	file.DataDir = absolute(file.DataDir)
	if p := file.Peers; p != nil {
		p.CAFile, p.CertFile, p.KeyFile = absolute(p.CAFile), absolute(p.CertFile), absolute(p.KeyFile)
	}
	if b := file.Consul; b != nil {
		b.CAFile, b.CertFile, b.KeyFile = absolute(b.CAFile), absolute(b.CertFile), absolute(b.KeyFile)
	}
	for i, j := range file.Jobs {
		file.Jobs[i] = absolute(j)
	}
	return file, nil
}

// newLogger returns the logger of a node, to standard error.
func newLogger(term *terminal, level string) (hclog.Logger, error) {
	levels := []string{"trace", "debug", "info", "warn", "error"}
	if !slices.Contains(levels, level) {
		return nil, fmt.Errorf("%q is not a log level: write trace, debug, info, warn or error", level)
	}
	return hclog.New(&hclog.LoggerOptions{Name: "meshrun", Level: hclog.LevelFromString(level), Output: term.err}), nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
