package cgroup

import (
	"path/filepath"
	"slices"
	"strings"
)

// controllers are those that limits are made of.
var controllers = []string{"memory", "cpu", "pids"}

// mount is a mounted hierarchy, and where in it this process lives.
type mount struct {
	point string // of the file system
	own   string // directory of this process's cgroup, at or below point
	v2    bool
	// controllers are those of a v1 hierarchy that meshrun uses; v2 has a file.
	controllers []string
	readOnly    bool
}

// findMounts parses /proc/self/mountinfo and /proc/self/cgroup. Hierarchies of
// version 1 come first, each once, and only those with controllers that meshrun
// uses. It leaves out hierarchies in which this process does not see itself.
func findMounts(mountinfo, self string) []mount {
	paths := ownPaths(self)
	var v1, v2 []mount
	taken := map[string]bool{}
	for l := range strings.SplitSeq(mountinfo, "\n") {
		before, after, ok := strings.Cut(l, " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 6 || len(g) < 3 {
			continue
		}
		m := mount{point: unescape(f[4]), v2: g[0] == "cgroup2", readOnly: slices.Contains(strings.Split(f[5], ","), "ro")}
		key := ""
		switch g[0] {
		case "cgroup2":
		case "cgroup":
			for _, option := range strings.Split(g[2], ",") {
				if slices.Contains(controllers, option) {
					m.controllers, key = append(m.controllers, option), option
				}
			}
			if key == "" {
				continue
			}
		default:
			continue
		}
		own, ok := below(paths[key], unescape(f[3]))
		if !ok || taken[key] {
			continue
		}
		taken[key] = true
		m.own = filepath.Join(m.point, own)
		if m.v2 {
			v2 = append(v2, m)
		} else {
			v1 = append(v1, m)
		}
	}
	return append(v1, v2...)
}

// ownPaths reads /proc/<pid>/cgroup: the path by controller, and by "" in
// version 2.
func ownPaths(text string) map[string]string {
	paths := map[string]string{}
	for l := range strings.SplitSeq(text, "\n") {
		number, rest, ok := strings.Cut(l, ":")
		names, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 {
			continue
		}
		if number == "0" && names == "" {
			paths[""] = path
			continue
		}
		for _, name := range strings.Split(names, ",") {
			if name != "" {
				paths[name] = path
			}
		}
	}
	return paths
}

// below returns a path relative to a mount whose root is a directory of the
// hierarchy; false if it is not in there.
func below(path, root string) (string, bool) {
	if path == "" || strings.HasPrefix(path, "/..") {
		return "", false
	}
	if root == "/" {
		return path, true
	}
	if path == root {
		return "/", true
	}
	rest, ok := strings.CutPrefix(path, root+"/")
	return "/" + rest, ok
}

// unescape undoes how mountinfo writes blanks.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
