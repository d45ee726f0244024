package consul_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/runtime/state/consul"
)

const (
	trustDomain = "11111111-2222-3333-4444-555555555555.consul"
	agentPath   = "/ns/default/dc/dc1/svc/meshrun-agent"
)

// authority is a CA of a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key}
	a.cert = a.sign(t, template, template, &key.PublicKey)
	return a
}

func (a *authority) sign(t *testing.T, template, parent *x509.Certificate, key *ecdsa.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// leaf issues a certificate with URIs.
func (a *authority) leaf(t *testing.T, until time.Time, uris ...string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	return a.sign(t, template, a.cert, &key.PublicKey), key
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// fakeCA answers as a Consul agent's CA does: at once if the index is older,
// and otherwise when it is given something new.
type fakeCA struct {
	mu      sync.Mutex // guards all below
	index   uint64
	roots   []*x509.Certificate
	cert    *x509.Certificate
	key     *ecdsa.PrivateKey
	changed chan struct{}
}

func (f *fakeCA) set(roots []*x509.Certificate, cert *x509.Certificate, key *ecdsa.PrivateKey) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.index++
	f.roots, f.cert, f.key = roots, cert, key
	if f.changed != nil {
		close(f.changed)
	}
	f.changed = make(chan struct{})
}

func (f *fakeCA) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	changed, same := f.changed, r.URL.Query().Get("index") == fmt.Sprint(f.index)
	f.mu.Unlock()
	if same {
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	w.Header().Set("X-Consul-Index", fmt.Sprint(f.index))
	if strings.HasSuffix(r.URL.Path, "/roots") {
		list := consulapi.CARootList{TrustDomain: trustDomain}
		for _, root := range f.roots {
			list.Roots = append(list.Roots, &consulapi.CARoot{RootCertPEM: pemOf("CERTIFICATE", root.Raw)})
		}
		_ = json.NewEncoder(w).Encode(list)
		return
	}
	der, err := x509.MarshalECPrivateKey(f.key)
	if err != nil {
		w.WriteHeader(500)
		return
	}
	_ = json.NewEncoder(w).Encode(consulapi.LeafCert{CertPEM: pemOf("CERTIFICATE", f.cert.Raw), PrivateKeyPEM: pemOf("EC PRIVATE KEY", der)})
}

// run runs an identity until the test ends.
func run(t *testing.T, address string, problem func(string)) *consul.Identity {
	t.Helper()
	client, err := consulapi.NewClient(&consulapi.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	id := consul.NewIdentity(client, "meshrun-agent", hclog.NewNullLogger(), problem)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- id.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return id
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	within(t, 20*time.Second, what, holds)
}

func within(t *testing.T, bound time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(bound); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, bound)
		}
	}
}

func TestOnlyAgentsOfThisClusterAreTrusted(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	later := time.Now().Add(30 * time.Minute)
	good := "spiffe://" + trustDomain + agentPath
	cert, key := ours.leaf(t, later, good)
	ca := &fakeCA{}
	ca.set([]*x509.Certificate{ours.cert}, cert, key)
	server := httptest.NewServer(ca)
	t.Cleanup(server.Close)
	id := run(t, server.URL, func(string) {})
	eventually(t, "identity", func() bool { return id.Verify([]*x509.Certificate{cert}, "") == nil })

	issue := func(a *authority, until time.Time, uris ...string) []*x509.Certificate {
		leaf, _ := a.leaf(t, until, uris...)
		return []*x509.Certificate{leaf}
	}
	for name, c := range map[string]struct {
		chain []*x509.Certificate
		why   string
	}{
		"another authority":    {issue(others, later, good), "unknown authority"},
		"another trust domain": {issue(ours, later, "spiffe://elsewhere.consul"+agentPath), "not \"spiffe://" + trustDomain},
		"another service":      {issue(ours, later, "spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/web"), "svc/web"},
		"another datacenter":   {issue(ours, later, "spiffe://"+trustDomain+"/ns/default/dc/dc2/svc/meshrun-agent"), "dc2"},
		"a longer path":        {issue(ours, later, good+"/x"), "/x"},
		"no identity":          {issue(ours, later), "its identity is \"\""},
		"two identities":       {issue(ours, later, good, "spiffe://"+trustDomain+"/ns/default/dc/dc1/svc/web"), "its identity is \"\""},
		"expired":              {issue(ours, time.Now().Add(-time.Minute), good), "expired"},
	} {
		for _, node := range []string{"", "node-b"} {
			if err := id.Verify(c.chain, node); err == nil || !strings.Contains(err.Error(), c.why) {
				t.Errorf("%s: %v, want %q", name, err, c.why)
			}
		}
	}
	for _, node := range []string{"", "node-b"} {
		if err := id.Verify(issue(ours, later, "spiffe://"+strings.ToUpper(trustDomain)+agentPath), node); err != nil {
			t.Errorf("an agent is refused: %v", err)
		}
	}
}

func TestARotatedCertificateAndRootTakeEffectAtOnce(t *testing.T) {
	first, second := newAuthority(t), newAuthority(t)
	good, later := "spiffe://"+trustDomain+agentPath, time.Now().Add(30*time.Minute)
	cert, key := first.leaf(t, later, good)
	next, nextKey := second.leaf(t, later, good)
	ca := &fakeCA{}
	ca.set([]*x509.Certificate{first.cert}, cert, key)
	server := httptest.NewServer(ca)
	t.Cleanup(server.Close)
	id := run(t, server.URL, func(string) {})
	trusts := func(c *x509.Certificate) bool { return id.Verify([]*x509.Certificate{c}, "") == nil }
	eventually(t, "the first root", func() bool { return trusts(cert) })
	ca.set([]*x509.Certificate{first.cert, second.cert}, next, nextKey)
	eventually(t, "both roots, the new certificate", func() bool {
		shown, err := id.Certificate()
		return err == nil && shown.Leaf.Equal(next) && trusts(cert) && trusts(next)
	})
	ca.set([]*x509.Certificate{second.cert}, next, nextKey)
	eventually(t, "the end of the old root", func() bool { return !trusts(cert) && trusts(next) })
}

func TestWithoutConsulItIsSaidAndTheLastCertificateStays(t *testing.T) {
	var mu sync.Mutex // guards said
	said := ""
	problem := func(text string) { mu.Lock(); defer mu.Unlock(); said = text }
	words := func() string { mu.Lock(); defer mu.Unlock(); return said }
	ours := newAuthority(t)
	cert, key := ours.leaf(t, time.Now().Add(30*time.Minute), "spiffe://"+trustDomain+agentPath)
	ca := &fakeCA{}
	ca.set([]*x509.Certificate{ours.cert}, cert, key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	id := run(t, "http://"+l.Addr().String(), problem)
	if _, err := id.Certificate(); !errors.Is(err, consul.ErrNoIdentity) {
		t.Errorf("certificate: %v", err)
	}
	if err := id.Verify([]*x509.Certificate{cert}, ""); !errors.Is(err, consul.ErrNoIdentity) {
		t.Errorf("verify: %v", err)
	}
	eventually(t, "a problem", func() bool { return strings.Contains(words(), "Consul gives no") })
	back, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	server := &http.Server{Handler: ca}
	go func() { _ = server.Serve(back) }()
	eventually(t, "the mending", func() bool { return words() == "" && id.Verify([]*x509.Certificate{cert}, "") == nil })
	server.Close()
	eventually(t, "another problem", func() bool { return words() != "" })
	if id.Verify([]*x509.Certificate{cert}, "") != nil {
		t.Error("what was known is forgotten")
	}
}

// startConsul starts a server in memory, with connect as it is by default.
func startConsul(t *testing.T) string {
	t.Helper()
	binary := os.Getenv("MESHRUN_TEST_CONSUL")
	if binary == "" {
		binary = filepath.Join("..", "..", "..", "bin", "consul")
	}
	if _, err := os.Stat(binary); err != nil {
		t.Skipf("there is no Consul to test with: run make consul: %v", err)
	}
	var ports [3]int
	for n := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[n] = l.Addr().(*net.TCPAddr).Port
		l.Close()
	}
	config := fmt.Sprintf(`ports { http = %d, server = %d, serf_lan = %d, serf_wan = -1, dns = -1, grpc = -1, grpc_tls = -1 }`, ports[0], ports[1], ports[2])
	file := filepath.Join(t.TempDir(), "consul.hcl")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "agent", "-dev", "-bind=127.0.0.1", "-log-level=warn", "-config-file="+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return fmt.Sprintf("http://127.0.0.1:%d", ports[0])
}

func TestAConsulIssuesAndRotatesTheIdentity(t *testing.T) {
	address := startConsul(t)
	id := run(t, address, func(string) {})
	other, err := consulapi.NewClient(&consulapi.Config{Address: address})
	if err != nil {
		t.Fatal(err)
	}
	var cert *x509.Certificate
	eventually(t, "a certificate", func() bool {
		shown, err := id.Certificate()
		if err == nil {
			cert = shown.Leaf
		}
		return err == nil && id.Verify([]*x509.Certificate{cert}, "") == nil && id.Verify([]*x509.Certificate{cert}, "node-b") == nil
	})
	if !strings.HasSuffix(cert.URIs[0].Path, agentPath) {
		t.Errorf("the identity is %s", cert.URIs[0])
	}
	web, _, err := other.Agent().ConnectCALeaf("web", nil)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(web.CertPEM))
	webCert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Verify([]*x509.Certificate{webCert}, ""); err == nil || !strings.Contains(err.Error(), "svc/web") {
		t.Errorf("another service: %v", err)
	}
	// Another root: Consul signs a new certificate, after up to 30 s so that not
	// all ask at once, and until then the old one stays trusted.
	_, err = other.Connect().CASetConfig(&consulapi.CAConfig{
		Provider: "consul", Config: map[string]any{"PrivateKeyType": "ec", "PrivateKeyBits": 384, "LeafCertTTL": "72h"},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	within(t, time.Minute, "a certificate of the new root", func() bool {
		if err := id.Verify([]*x509.Certificate{cert}, ""); err != nil {
			t.Fatalf("in between, the old certificate is refused: %v", err)
		}
		shown, err := id.Certificate()
		return err == nil && !shown.Leaf.Equal(cert) && id.Verify([]*x509.Certificate{shown.Leaf}, "") == nil
	})
}
