// Package integration looks at meshrun from outside: the real binary, real
// processes, real kills.
package integration

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/synergymesh/meshrun/"

// allowedImports lists which package trees each package tree may import. A tree is a directory with
// everything below it, and may always import itself.
var allowedImports = map[string][]string{
	"cmd":           {"runtime/agent", "runtime/api", "runtime/plan", "schema", "spec"},
	"spec":          {},
	"schema":        {"spec"},
	"runtime/state": {"spec", "runtime/internal/loop"},
	// What the small loops of runtime have in common; it imports nothing of ours.
	"runtime/internal/loop": {},
	// It starts Consul servers for tests, and is no part of meshrun.
	"runtime/state/consul/consultest": {},
	"runtime/watchdog":                {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/scheduler":               {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/orchestrator":            {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/engine":                  {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/monitor":                 {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/api":                     {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/control": {
		"spec", "schema", "runtime/state", "runtime/watchdog", "runtime/scheduler", "runtime/orchestrator", "runtime/engine",
		"runtime/plan", "runtime/api", "runtime/internal/loop",
	},
	"runtime/membership": {"spec", "runtime/state", "runtime/internal/loop"},
	"runtime/plan":       {"spec", "runtime/state", "runtime/scheduler", "runtime/orchestrator"},
	"runtime/agent": {
		"spec", "schema", "runtime/state", "runtime/watchdog", "runtime/scheduler", "runtime/orchestrator",
		"runtime/engine", "runtime/monitor", "runtime/api", "runtime/plan", "runtime/membership", "runtime/control", "runtime/internal/loop",
	},
	"examples":    {},
	"integration": {"spec", "runtime/state/consul/consultest"},
}

// implementations are the packages of runtime/state that only the agent may
// open: everybody else sees the contract.
var implementations = []string{"runtime/state/local", "runtime/state/consul", "runtime/state/statetest"}

func TestPackagesImportOnlyWhatIsAllowed(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	seen := 0
	for dec.More() {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&pkg); err != nil {
			t.Fatalf("read package list: %v", err)
		}
		from, ok := treeOf(pkg.ImportPath)
		if !ok {
			t.Errorf("%s is in no known package tree: add it to allowedImports", pkg.ImportPath)
			continue
		}
		seen++
		for _, imp := range pkg.Imports {
			checkImport(t, from, pkg.ImportPath, imp)
		}
	}
	if seen < 10 {
		t.Fatalf("saw only %d packages: the list is incomplete", seen)
	}
}

func checkImport(t *testing.T, from, pkg, imp string) {
	if from == "spec" && strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") {
		t.Errorf("%s imports %s: spec uses the standard library only", pkg, imp)
	}
	if !strings.HasPrefix(imp, module) {
		return
	}
	to, ok := treeOf(imp)
	if !ok || (to != from && !slices.Contains(allowedImports[from], to)) {
		t.Errorf("%s imports %s: %s may not import %s", pkg, imp, from, to)
	}
	short := strings.TrimPrefix(imp, module)
	if slices.Contains(implementations, short) && from != "runtime/agent" && from != "runtime/state" {
		t.Errorf("%s imports %s: only the agent chooses an implementation of the store", pkg, imp)
	}
}

// treeOf returns the longest listed tree that holds the package.
func treeOf(importPath string) (string, bool) {
	short := strings.TrimPrefix(importPath, module)
	best := ""
	for tree := range allowedImports {
		if (short == tree || strings.HasPrefix(short, tree+"/")) && len(tree) > len(best) {
			best = tree
		}
	}
	return best, best != ""
}
