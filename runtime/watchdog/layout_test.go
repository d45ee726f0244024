package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheDataDirectoryIsPrivateAndOfAKnownLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for range 2 { // the second time it is there already
		if err := PrepareDataDir(dir); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v (%v), want 0700", info.Mode(), err)
	}
	version := filepath.Join(dir, "VERSION")
	if err := os.WriteFile(version, []byte("3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := PrepareDataDir(dir); !errors.Is(err, ErrNewerLayout) {
		t.Errorf("a newer layout: %v, want ErrNewerLayout", err)
	}
	if err := Run(t.Context(), Config{DataDir: dir}); !errors.Is(err, ErrNewerLayout) || !strings.Contains(err.Error(), "layout version 3") {
		t.Errorf("the watchdog of a newer layout: %v, want ErrNewerLayout", err)
	}
	for _, torn := range []string{"", "\n", "\x00\x00", "one"} {
		if err := os.WriteFile(version, []byte(torn), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := PrepareDataDir(dir); err != nil {
			t.Errorf("version file %q: %v", torn, err)
		}
		if b, err := os.ReadFile(version); err != nil || string(b) != "2\n" {
			t.Errorf("version file %q became %q (%v), want 2", torn, b, err)
		}
	}
	if err := os.WriteFile(version, []byte("1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1\n", "2\n"} { // an older one is marked only when its state was taken over
		if err := PrepareDataDir(dir); err != nil {
			t.Errorf("an older layout: %v", err)
		}
		if b, err := os.ReadFile(version); err != nil || string(b) != want {
			t.Errorf("VERSION is %q (%v), want %q", b, err, want)
		}
		if err := MarkDataDir(dir); err != nil {
			t.Errorf("mark the directory: %v", err)
		}
	}
	if err := PrepareDataDir("/" + strings.Repeat("x", maxDataDir)); err == nil {
		t.Error("a path too long for sockets was taken")
	}
}
