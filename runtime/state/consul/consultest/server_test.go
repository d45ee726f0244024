package consultest

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheEnvironmentChoosesTheConsulBeforeAllElse(t *testing.T) {
	t.Setenv(BinaryEnv, "/opt/consul")
	if path, err := Binary(); err != nil || path != "/opt/consul" {
		t.Errorf("got %q, %v", path, err)
	}
}

func TestOurConsulGoesBeforeTheOneInPath(t *testing.T) {
	t.Setenv(BinaryEnv, "")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "consul"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	ours, err := filepath.Abs("../../../../bin/consul")
	if err != nil {
		t.Fatal(err)
	}
	want := ours
	if !executable(ours) {
		want = filepath.Join(dir, "consul")
	}
	if path, err := Binary(); err != nil || path != want {
		t.Errorf("got %q, %v; want %q", path, err, want)
	}
}

func TestAServerHasConsulsUIAndEndsWhenKilled(t *testing.T) {
	s, err := Start(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var page []byte
	err = s.Call(t.Context(), http.MethodGet, "/ui/", nil, &page)
	s.Kill()
	if err != nil || !strings.Contains(string(page), "<title>Consul") {
		t.Errorf("got %.200q, %v", page, err)
	}
	if err := s.Call(t.Context(), http.MethodGet, "/v1/status/leader", nil, nil); err == nil {
		t.Error("it answers after its end")
	}
	s.Kill() // again is no error
}
