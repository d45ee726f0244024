// Command trycluster is `make cluster`: three Consul servers and three agents
// on this machine, without any rights, with an example applied, until Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/integration/cluster"
)

const guide = `
The cluster is up: three Consul servers, three nodes.

  Consul UI           http://%[1]s:8500/ui
                      Key/Value > meshrun > v1: jobs (what is wanted), placements (where), assignments
                      (what each node is to run), observed (what runs), nodes, locks, events.
                      A key under locks/shards shows the session, and so the node, that holds the shard.

In another terminal:

  export MESHRUN_DATA_DIR=%[2]s
  bin/meshrun status                       # all nodes' instances, asked of one of them
  bin/meshrun nodes
  bin/meshrun leader
  bin/meshrun logs -f tickets/seller       # from all nodes, merged; the tokens grow when shards move
  bin/meshrun drain n2                     # its shards go elsewhere; bin/meshrun drain -off n2 takes it back
  kill -9 %[3]d                             # the agent of n3 dies: it is back at once, and nothing moved
  kill -STOP %[3]d                          # it hangs instead: within 5 s its watchdog ends its exclusive shards, and within
                                           # 25 s other nodes have them, never sooner; kill -CONT brings it back

Ctrl-C stops everything.
`

func main() {
	meshrun := flag.String("meshrun", "bin/meshrun", "the `program` to run")
	dir := flag.String("dir", ".run/cluster", "`directory` for everything that the cluster keeps")
	jobs := flag.String("jobs", "examples/cluster", "job files to apply; \"\" for none")
	net := flag.String("net", "127.0.0", "the first three `numbers` of its addresses, on loopback")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := try(ctx, *meshrun, *dir, *net, *jobs); err != nil {
		fmt.Fprintln(os.Stderr, "trycluster:", err)
		os.Exit(1)
	}
}

// try runs the cluster until the context ends.
func try(ctx context.Context, meshrun, dir, net, jobs string) (err error) {
	consul, err := cluster.FindConsul(".")
	if err != nil {
		return err
	}
	if meshrun, err = filepath.Abs(meshrun); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	l := &cluster.Local{Dir: dir, Net: net, Programs: cluster.Programs{Consul: consul, Meshrun: meshrun}}
	defer func() {
		fmt.Println("stopping the agents, what they run, and Consul")
		err = errors.Join(err, l.Stop())
	}()
	if err := start(ctx, l, jobs); err != nil {
		if ctx.Err() != nil {
			return nil // Ctrl-C
		}
		return fmt.Errorf("%w\nthe logs are in %s", err, dir)
	}
	n3, err := l.Status(ctx, 3)
	if err != nil {
		return err
	}
	fmt.Printf(guide, l.Addr(1), l.Data(1), n3.Agent.PID)
	<-ctx.Done()
	return nil
}

// start starts everything and applies the jobs.
func start(ctx context.Context, l *cluster.Local, jobs string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fmt.Println("starting three Consul servers, on", l.Addr(1), "to", l.Addr(cluster.LocalSize))
	if err := l.StartConsul(ctx); err != nil {
		return err
	}
	fmt.Println("starting three agents, n1 to n3")
	if err := l.StartAgents(ctx); err != nil {
		return err
	}
	if jobs == "" {
		return nil
	}
	fmt.Println("applying", jobs)
	return l.Apply(ctx, jobs)
}
