package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
)

// place says which agent a command speaks to.
type place struct {
	term *terminal
	// dir is what -data-dir says; empty if it was not given.
	dir string
}

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.dir, "data-dir", "", "the `directory` of the agent's data and socket; else $MESHRUN_DATA_DIR, else the usual one")
}

// dataDir returns the absolute path of the data directory: -data-dir, else
// MESHRUN_DATA_DIR, else the usual one.
func (p *place) dataDir() (string, error) {
	dir := p.dir
	if dir == "" {
		dir = p.term.lookup("MESHRUN_DATA_DIR")
	}
	if dir == "" {
		dir = usualDataDir(os.Geteuid(), p.term.lookup)
	}
	if dir == "" {
		return "", fmt.Errorf("find data directory: neither XDG_STATE_HOME nor HOME is set: name one with -data-dir")
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find data directory: %w", err)
	}
	return abs, nil
}

// usualDataDir is where data is kept if nobody says where.
func usualDataDir(uid int, env func(string) string) string {
	if uid == 0 {
		return "/var/lib/meshrun"
	}
	// The XDG base directory specification asks to ignore relative paths.
	if state := env("XDG_STATE_HOME"); filepath.IsAbs(state) {
		return filepath.Join(state, "meshrun")
	}
	if home := env("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "meshrun")
	}
	return ""
}

// client returns a client of the agent: the one at -data-dir, else at
// MESHRUN_ADDR, else in the data directory.
func (p *place) client() (*api.Client, error) {
	if addr := p.term.lookup("MESHRUN_ADDR"); addr != "" && p.dir == "" {
		return api.NewClient(addr), nil
	}
	dir, err := p.dataDir()
	if err != nil {
		return nil, err
	}
	return api.NewClient(filepath.Join(dir, "agent.sock")), nil
}
