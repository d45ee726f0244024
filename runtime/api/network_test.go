package api_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/api"
	"github.com/synergymesh/meshrun/runtime/api/apitest"
	"github.com/synergymesh/meshrun/spec"
)

// dial returns a client of a server on the network.
func dial(t *testing.T, server *api.Server, cred api.Credentials, node string) *api.Client {
	t.Helper()
	c := api.NewClientOf(api.ClientConfig{Address: "https://" + server.Address(), Credentials: cred, Node: node})
	t.Cleanup(c.Close)
	return c
}

func TestAnotherAgentPassesOnWhoAsks(t *testing.T) {
	ca := apitest.NewCA(t, "mesh")
	var got api.Call
	server := apitest.ServeTLS(t, &apitest.Backend{UpgradeFunc: func(ctx context.Context) error { got = api.CallOf(ctx); return nil }},
		ca.Credentials(t, apitest.Leaf{DNS: "node-a"}))
	client := dial(t, server, ca.Credentials(t, apitest.Leaf{DNS: "node-b"}), "node-a")
	asked := api.Call{Who: "alice", Token: "t0ken", Local: true}
	if err := client.Upgrade(api.WithCall(t.Context(), asked)); err != nil || got != asked {
		t.Errorf("came as %+v, %v", got, err)
	}
	if err := client.Upgrade(t.Context()); err != nil || got != (api.Call{Who: "node-b"}) {
		t.Errorf("without a word of who asks: %+v, %v", got, err)
	}
	if err := client.Upgrade(api.WithCall(t.Context(), api.Call{Who: "al\x1b[2Jice" + strings.Repeat("x", 500)})); err == nil || strings.Contains(got.Who, "\x1b") {
		t.Errorf("a name that cannot be sent: %+v, %v", got, err)
	}
}

func TestOnlyAnotherAgentMayAskForTheEndOfItsSession(t *testing.T) {
	ca := apitest.NewCA(t, "mesh")
	var got api.SessionEnd
	backend := &apitest.Backend{ClusterFuncs: apitest.ClusterFuncs{
		EndSessionFunc: func(_ context.Context, end api.SessionEnd) error { got = end; return nil },
	}}
	server := apitest.ServeTLS(t, backend, ca.Credentials(t, apitest.Leaf{DNS: "node-a"}))
	end := api.SessionEnd{Node: "node-b", Session: "s", Silent: spec.Duration(9 * time.Second)}
	local, _ := serve(t, backend)
	if err := local.EndSession(t.Context(), end); !errors.Is(err, api.ErrForbidden) || got != (api.SessionEnd{}) {
		t.Errorf("a user: %v, %+v", err, got)
	}
	if err := dial(t, server, ca.Credentials(t, apitest.Leaf{DNS: "node-b"}), "node-a").EndSession(t.Context(), end); err != nil || got != end {
		t.Errorf("an agent: %v, %+v", err, got)
	}
}

func TestOnASocketNobodyIsWhoTheySay(t *testing.T) {
	var got api.Call
	client, _ := serve(t, &apitest.Backend{UpgradeFunc: func(ctx context.Context) error { got = api.CallOf(ctx); return nil }})
	if err := client.Upgrade(api.WithCall(t.Context(), api.Call{Who: "mallory", Token: "hers"})); err != nil {
		t.Fatal(err)
	}
	if got.Who == "mallory" || got.Who == "" || got.Token != "hers" || got.Local {
		t.Errorf("came as %+v: the kernel says who it is, the token is the caller's", got)
	}
}

// logged is a logger's output.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestWrongCertificatesAreRefusedAndTheLogSaysWhy(t *testing.T) {
	ca, other := apitest.NewCA(t, "mesh"), apitest.NewCA(t, "elsewhere")
	good := ca.Credentials(t, apitest.Leaf{DNS: "node-b"})
	for name, c := range map[string]struct {
		cred api.Credentials
		why  string
	}{
		"of another authority": {mixed{other.Credentials(t, apitest.Leaf{DNS: "node-b"}), good}, "unknown authority"},
		"that has expired":     {mixed{ca.Credentials(t, apitest.Leaf{DNS: "node-b", Until: time.Now().Add(-time.Minute)}), good}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			var log logged
			server := api.NewServer(api.Config{
				Backend: &apitest.Backend{}, SocketPath: filepath.Join(t.TempDir(), "s"), Logger: hclog.New(&hclog.LoggerOptions{Output: &log}),
			})
			if err := errors.Join(server.Open(), server.Listen(t.Context(), "127.0.0.1:0", ca.Credentials(t, apitest.Leaf{DNS: "node-a"}))); err != nil {
				t.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- server.Serve() }()
			err := dial(t, server, c.cred, "node-a").Healthy(t.Context())
			if !errors.Is(err, api.ErrForbidden) && !errors.Is(err, api.ErrUnavailable) {
				t.Errorf("the client got %v", err)
			}
			if err := errors.Join(server.Close(), <-served); err != nil {
				t.Error(err)
			}
			if !strings.Contains(log.String(), c.why) || !strings.Contains(log.String(), "refused a connection") {
				t.Errorf("the log says: %s", &log)
			}
		})
	}
}

// mixed shows one certificate and judges by the other's roots.
type mixed struct {
	shown api.Credentials
	api.Credentials
}

func (m mixed) Certificate() (*tls.Certificate, error) { return m.shown.Certificate() }

func TestAClientTalksToNobodyButTheNodeThatItMeans(t *testing.T) {
	ca, other := apitest.NewCA(t, "mesh"), apitest.NewCA(t, "elsewhere")
	called := false
	backend := &apitest.Backend{SignalFunc: func(context.Context, string, spec.Signal) (int, error) { called = true; return 1, nil }}
	mine := ca.Credentials(t, apitest.Leaf{DNS: "node-a"})
	for name, c := range map[string]struct {
		cred api.Credentials
		node string
	}{
		"another node's":       {ca.Credentials(t, apitest.Leaf{DNS: "node-c"}), "node-b"},
		"another authority's":  {mixed{other.Credentials(t, apitest.Leaf{DNS: "node-b"}), ca.Credentials(t, apitest.Leaf{DNS: "x"})}, "node-b"},
		"one that has expired": {ca.Credentials(t, apitest.Leaf{DNS: "node-b", Until: time.Now().Add(-time.Minute)}), "node-b"},
	} {
		server := apitest.ServeTLS(t, backend, c.cred)
		_, err := dial(t, server, mine, c.node).Signal(t.Context(), "web", "SIGHUP")
		if !errors.Is(err, api.ErrForbidden) || !strings.Contains(err.Error(), "not trusted") || called {
			t.Errorf("%s certificate: %v", name, err)
		}
	}
	consul := ca.Credentials(t, apitest.Leaf{URI: "spiffe://x.consul/ns/default/dc/dc1/svc/" + api.AgentService})
	for _, cred := range []api.Credentials{ca.Credentials(t, apitest.Leaf{DNS: "node-b"}), consul} {
		if _, err := dial(t, apitest.ServeTLS(t, backend, cred), mine, "node-b").Signal(t.Context(), "web", "SIGHUP"); err != nil {
			t.Error(err)
		}
	}
	if _, err := dial(t, apitest.ServeTLS(t, backend, ca.Credentials(t, apitest.Leaf{DNS: "node-b"})), mine, "").Signal(t.Context(), "web", "SIGHUP"); err != nil {
		t.Errorf("by the address: %v", err)
	}
}

func TestCertificatesFromFilesAreRotatedWithoutARestart(t *testing.T) {
	ca, next := apitest.NewCA(t, "mesh"), apitest.NewCA(t, "next")
	dir := t.TempDir()
	files := ca.Write(t, dir, apitest.Leaf{DNS: "node-a"})
	cred, err := api.NewFileCredentials(files)
	if err != nil {
		t.Fatal(err)
	}
	server := apitest.ServeTLS(t, &apitest.Backend{}, cred)
	if err := dial(t, server, ca.Credentials(t, apitest.Leaf{DNS: "b"}), "node-a").Healthy(t.Context()); err != nil {
		t.Fatal(err)
	}
	next.Write(t, dir, apitest.Leaf{DNS: "node-a-again"})
	if err := dial(t, server, next.Credentials(t, apitest.Leaf{DNS: "b"}), "node-a-again").Healthy(t.Context()); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	if err := dial(t, server, ca.Credentials(t, apitest.Leaf{DNS: "b"}), "node-a").Healthy(t.Context()); err == nil {
		t.Error("the old authority is still trusted")
	}
	for _, broken := range []string{files.KeyFile, files.CAFile} {
		writeFile(t, broken, "half")
	}
	if err := dial(t, server, next.Credentials(t, apitest.Leaf{DNS: "b"}), "node-a-again").Healthy(t.Context()); err != nil {
		t.Errorf("while what is written is not whole: %v", err)
	}
	if _, err := api.NewFileCredentials(files); err == nil {
		t.Error("broken files were taken")
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWithoutCertificatesNobodyListensAndNobodyAsks(t *testing.T) {
	server := api.NewServer(api.Config{Backend: &apitest.Backend{}, Logger: hclog.NewNullLogger()})
	if err := server.Listen(t.Context(), "127.0.0.1:0", nil); !errors.Is(err, api.ErrInvalid) || server.Address() != "" {
		t.Errorf("listens: %v", err)
	}
	cred := apitest.NewCA(t, "mesh").Credentials(t, apitest.Leaf{DNS: "a"})
	for _, cfg := range []api.ClientConfig{
		{Address: "https://127.0.0.1:7450"}, {Address: "https://node-a", Credentials: cred}, {Address: "https://:1", Credentials: cred}, {Address: "http://127.0.0.1:1", Credentials: cred},
	} {
		if err := api.NewClientOf(cfg).Healthy(t.Context()); !errors.Is(err, api.ErrInvalid) {
			t.Errorf("%s: %v", cfg.Address, err)
		}
	}
}

func TestWhoAnswersNothingIsUnavailable(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the bound of a handshake")
	}
	hung, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cred := apitest.NewCA(t, "mesh").Credentials(t, apitest.Leaf{DNS: "a"})
	client := api.NewClientOf(api.ClientConfig{Address: "https://" + hung.Addr().String(), Credentials: cred, Node: "node-b"})
	if err := client.Healthy(t.Context()); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("hung: %v", err)
	}
	hung.Close()
	if err := client.Healthy(t.Context()); !errors.Is(err, api.ErrNoAgent) {
		t.Errorf("gone: %v", err)
	}
}
