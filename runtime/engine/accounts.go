package engine

import (
	"fmt"
	"os/user"
	"strings"
	"sync"
)

// accounts looks users up in the system and remembers those that it found.
type accounts struct {
	environ []string

	mu    sync.Mutex // guards found
	found map[string]Account
}

func newAccounts(environ []string) *accounts {
	return &accounts{environ: environ, found: map[string]Account{}}
}

// lookup returns the account of a user, by name or number; of the empty name,
// the agent's own, as its environment says.
func (a *accounts) lookup(name string) (Account, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if acc, ok := a.found[name]; ok {
		return acc, nil
	}
	acc, err := a.find(name)
	if err == nil {
		a.found[name] = acc
	}
	return acc, err
}

func (a *accounts) find(name string) (Account, error) {
	if name == "" {
		return a.own(), nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		byID, errID := user.LookupId(name)
		if errID != nil {
			return Account{}, fmt.Errorf("%w: create it on this node, or name another one in user", err)
		}
		u = byID
	}
	return Account{Name: u.Username, Home: u.HomeDir, Shell: "/bin/sh"}, nil
}

// own is the account that the agent runs as; what its environment leaves out,
// the system says.
func (a *accounts) own() Account {
	acc := Account{Shell: "/bin/sh"}
	for _, kv := range a.environ {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "HOME":
			acc.Home = value
		case "USER":
			acc.Name = value
		case "SHELL":
			acc.Shell = value
		}
	}
	if acc.Home != "" && acc.Name != "" {
		return acc
	}
	if u, err := user.Current(); err == nil {
		if acc.Home == "" {
			acc.Home = u.HomeDir
		}
		if acc.Name == "" {
			acc.Name = u.Username
		}
	}
	return acc
}
