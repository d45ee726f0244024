package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/synergymesh/meshrun/integration/ledger"
)

// runShard is a copy of an exclusive shard: it says in the ledger that it
// lives, every so often, until it is told to end. What it is it knows from
// meshrun alone, like any program.
func runShard(path string, every time.Duration, ignoreTerm bool) error {
	id := os.Getenv("MESHRUN_JOB") + "/" + os.Getenv("MESHRUN_PROCESS") + "/" + os.Getenv("MESHRUN_SHARD")
	token, err := strconv.ParseUint(os.Getenv("MESHRUN_TOKEN"), 10, 64)
	if err != nil {
		token = 0 // the judge finds it
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGINT, syscall.SIGTERM)
	if ignoreTerm {
		signal.Ignore(syscall.SIGTERM)
	}
	w, err := ledger.Open(path, id, os.Getenv("MESHRUN_NODE"), token)
	if err != nil {
		return err
	}
	if err := w.Write(ledger.Start); err != nil {
		return err
	}
	tick := time.NewTicker(every)
	for {
		select {
		case <-term:
			return w.Write(ledger.End)
		case <-tick.C:
			if err := w.Write(ledger.Alive); err != nil {
				return fmt.Errorf("say that %s lives: %w", id, err)
			}
		}
	}
}
