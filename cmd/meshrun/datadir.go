package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/synergymesh/meshrun/runtime/api"
)

// place says which agent a command speaks to.
type place struct {
	term *terminal
	// dir is what -data-dir says; empty if it was not given.
	dir string
	// addr is what -addr says: the agent to speak to, instead of the one in a
	// data directory.
	addr string
	// cert names the files to be known by at an agent on the network.
	cert api.CertificateFiles
}

func (p *place) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.dir, "data-dir", "", "the `directory` of the agent's data and socket; else $MESHRUN_DATA_DIR, else the usual one")
}

// remote adds the flags of commands that may speak to an agent elsewhere.
func (p *place) remote(cmd *cobra.Command) {
	p.flags(cmd)
	cmd.Flags().StringVar(&p.addr, "addr", "", "another `agent`: its socket, or https://HOST:PORT with -ca-file, -cert-file and -key-file; else $MESHRUN_ADDR")
	for name, value := range map[string]*string{"ca-file": &p.cert.CAFile, "cert-file": &p.cert.CertFile, "key-file": &p.cert.KeyFile} {
		cmd.Flags().StringVar(value, name, "", "a PEM `file`; else $MESHRUN_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_")))
		cmd.Flags().Lookup(name).Hidden = true // -addr tells of them, and every help would be longer
	}
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

// client returns a client of the agent: the one at -addr, else at -data-dir,
// else at MESHRUN_ADDR, else in the data directory.
func (p *place) client() (*api.Client, error) {
	token, err := p.token()
	if err != nil {
		return nil, err
	}
	cfg := api.ClientConfig{Address: p.addr, Call: api.Call{Token: token}}
	if cfg.Address == "" && p.dir == "" {
		cfg.Address = p.term.lookup("MESHRUN_ADDR")
	}
	if cfg.Address == "" {
		dir, err := p.dataDir()
		if err != nil {
			return nil, err
		}
		cfg.Address = filepath.Join(dir, "agent.sock")
	}
	if strings.HasPrefix(cfg.Address, "https://") {
		if cfg.Credentials, err = p.credentials(); err != nil {
			return nil, err
		}
		if me, err := user.Current(); err == nil {
			cfg.Call.Who = me.Username
		}
	}
	return api.NewClientOf(cfg), nil
}

// credentials returns what an agent on the network is shown.
func (p *place) credentials() (api.Credentials, error) {
	files := api.CertificateFiles{
		CAFile:   firstOf(p.cert.CAFile, p.term.lookup("MESHRUN_CA_FILE")),
		CertFile: firstOf(p.cert.CertFile, p.term.lookup("MESHRUN_CERT_FILE")),
		KeyFile:  firstOf(p.cert.KeyFile, p.term.lookup("MESHRUN_KEY_FILE")),
	}
	if files.CAFile == "" || files.CertFile == "" || files.KeyFile == "" {
		return nil, errors.New("an agent on the network lets in who shows a certificate: give -ca-file, -cert-file and -key-file, or MESHRUN_CA_FILE, MESHRUN_CERT_FILE and MESHRUN_KEY_FILE")
	}
	return api.NewFileCredentials(files)
}

// token returns the person's Consul token, read as Consul's own tools do.
func (p *place) token() (string, error) {
	path := p.term.lookup("CONSUL_HTTP_TOKEN_FILE")
	if path == "" {
		return p.term.lookup("CONSUL_HTTP_TOKEN"), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read CONSUL_HTTP_TOKEN_FILE: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
