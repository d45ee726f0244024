package control

import (
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/watchdog"
)

// A watchdog that dies of its upgrade is replaced by the agent alone.
func TestAnUpgradedAgentEndsOnlyAfterANewWatchdogAnswers(t *testing.T) {
	dir, err := os.MkdirTemp("", "upgrade")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "watchdog"), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "watchdog", "watchdog.sock"))
	if err != nil {
		t.Fatal(err)
	}
	const silence = 5 // questions that the old one still answers
	var upgrading atomic.Bool
	var asked atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/upgrade", func(http.ResponseWriter, *http.Request) { upgrading.Store(true) })
	mux.HandleFunc("GET /v1/health", func(w http.ResponseWriter, _ *http.Request) {
		h := watchdog.Health{Started: time.Unix(1, 0)}
		if upgrading.Load() && asked.Add(1) > silence {
			h.Started = time.Unix(2, 0)
		}
		_ = json.NewEncoder(w).Encode(h)
	})
	server := &http.Server{Handler: mux}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(ln)
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	ended := false
	b := &Node{cfg: Config{Watchdog: watchdog.NewClient(dir), Restart: func() { ended = asked.Load() > silence }}}
	if err := b.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !ended {
		t.Error("it ended before a new watchdog answered")
	}
}
