package watchdog

import (
	"syscall"

	"github.com/synergymesh/meshrun/spec"
)

// Prepare resolves a launch's command, user and directory by the rules of the
// watchdog's own starts. It returns the program's path, the directory, and the
// credential to run with, nil for that of this process. Only Argv, Dir, Env and
// User count.
func Prepare(l *spec.Launch) (path, dir string, as *syscall.Credential, err error) {
	p, err := prepare(l, l.Argv)
	return p.path, p.dir, p.cred, err
}
