package watchdog

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/synergymesh/meshrun/spec"
)

// defaultPath is the search path if the environment has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// prepared is a launch that was checked against this machine.
type prepared struct {
	path string
	dir  string
	cred *syscall.Credential // nil: as this process
}

// prepare checks, right before a start, that the user, the directory and the
// command exist. Operators read its errors.
func prepare(l *spec.Launch, argv []string) (prepared, error) {
	p := prepared{dir: l.Dir}
	if p.dir == "" {
		p.dir = "/"
	}
	info, err := os.Stat(p.dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return p, fmt.Errorf("directory %s does not exist: create it, or set dir to another one", p.dir)
	case err != nil:
		return p, fmt.Errorf("directory %s cannot be used: %w", p.dir, err)
	case !info.IsDir():
		return p, fmt.Errorf("directory %s is not a directory", p.dir)
	}
	if l.User != "" {
		if p.cred, err = credential(l.User); err != nil {
			return p, err
		}
	}
	p.path, err = findCommand(argv[0], p.dir, l.Env)
	return p, err
}

// findCommand returns the path of a command. One with a slash is relative to
// the directory; any other is searched in the environment's PATH.
func findCommand(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		path := name
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return path, executable(path)
	}
	search := defaultPath
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
		}
	}
	var refused error
	dirs := filepath.SplitList(search)
	for _, d := range dirs {
		if !filepath.IsAbs(d) {
			d = filepath.Join(dir, d)
		}
		path := filepath.Join(d, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if refused == nil && !errors.Is(err, os.ErrNotExist) {
			refused = err
		}
	}
	if refused != nil {
		return "", refused
	}
	count := "1 directory"
	if len(dirs) != 1 {
		count = fmt.Sprintf("%d directories", len(dirs))
	}
	return "", fmt.Errorf("program %q not found in PATH (%s): install it, or write its full path", name, count)
}

// executable checks that a file exists and has an execute bit.
func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &missingError{path}
	case err != nil:
		return fmt.Errorf("command %s cannot be used: %w", path, err)
	case info.IsDir():
		return fmt.Errorf("command %s is a directory", path)
	case info.Mode()&0o111 == 0:
		return fmt.Errorf("command %s is not executable: chmod +x it", path)
	}
	return nil
}

// missingError says that a command's file does not exist.
type missingError struct{ path string }

func (e *missingError) Error() string {
	return fmt.Sprintf("command %s does not exist: install it, or correct the command", e.path)
}

func (e *missingError) Unwrap() error { return os.ErrNotExist }

// credential parses "name", "name:group" or numbers; nil if this process runs
// as that already and could not change to another user.
func credential(text string) (*syscall.Credential, error) {
	name, group, hasGroup := strings.Cut(text, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if _, nerr := strconv.ParseUint(name, 10, 32); nerr == nil {
			u, err = user.LookupId(name)
		}
	}
	c := &syscall.Credential{}
	switch {
	case err == nil:
		if c.Uid, err = parseID(u.Uid); err == nil {
			c.Gid, err = parseID(u.Gid)
		}
		if err != nil {
			return nil, fmt.Errorf("user %q has an unusable entry: %w", name, err)
		}
		c.Groups = groupsOf(u)
	default:
		uid, nerr := parseID(name)
		if nerr != nil {
			return nil, fmt.Errorf("unknown user %q: create it, or set user to another one", name)
		}
		if !hasGroup {
			return nil, fmt.Errorf("unknown user %q: it has no passwd entry, so name its group as well: \"%s:<group>\"", name, name)
		}
		c.Uid = uid
	}
	if hasGroup {
		if c.Gid, err = lookupGroup(group); err != nil {
			return nil, err
		}
	}
	if os.Geteuid() != 0 {
		if int(c.Uid) == os.Geteuid() && int(c.Gid) == os.Getegid() {
			return nil, nil
		}
		return nil, fmt.Errorf("cannot become user %q: meshrun does not run as root", text)
	}
	return c, nil
}

func lookupGroup(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		return parseID(g.Gid)
	}
	gid, err := parseID(name)
	if err != nil {
		return 0, fmt.Errorf("unknown group %q: create it, or set user to \"name\" or \"name:group\"", name)
	}
	return gid, nil
}

// groupsOf returns the supplementary groups of a user; one whose groups cannot
// be read has none.
func groupsOf(u *user.User) []uint32 {
	ids, err := u.GroupIds()
	if err != nil {
		return nil
	}
	var groups []uint32
	for _, id := range ids {
		if gid, err := parseID(id); err == nil {
			groups = append(groups, gid)
		}
	}
	return groups
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// explain describes why the kernel refused to execute what prepare accepted.
func explain(err error, p prepared, l *spec.Launch) error {
	as := ""
	if l.User != "" {
		as = " as user " + l.User
	}
	switch {
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("start %s: its interpreter (first line) or its loader is missing", p.path)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("start %s: it is neither a program for this machine nor a script with a #! line", p.path)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("start %s%s: permission denied: the command and the directory %s must be accessible", p.path, as, p.dir)
	case errors.Is(err, syscall.E2BIG):
		return fmt.Errorf("start %s: its arguments and environment are too large", p.path)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("start %s%s: too many processes: raise TasksMax, ulimit -u or pid_max", p.path, as)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("start %s: too many open files: raise LimitNOFILE", p.path)
	default:
		return fmt.Errorf("start %s%s: %w", p.path, as, err)
	}
}
