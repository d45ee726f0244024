package watchdog

import (
	"syscall"

	"github.com/synergymesh/meshrun/spec"
)

// Prepare returns what runs a launch's command with its user and directory, by
// the same rules as the watchdog's own starts: the program's path, the directory,
// and whom to become, nil for nobody else. Only Argv, Dir, Env and User count.
func Prepare(l *spec.Launch) (path, dir string, as *syscall.Credential, err error) {
	p, err := prepare(l, l.Argv)
	return p.path, p.dir, p.cred, err
}
