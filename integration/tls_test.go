package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/spec"
)

// issued are the files of a certificate and of the authority that signed it.
type issued struct{ ca, cert, key string }

// issue makes an authority and a certificate of this machine, for a server and
// a client, in a directory of their own.
func issue(t *testing.T) issued {
	t.Helper()
	dir := t.TempDir()
	out := issued{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	write := func(path, kind string, der []byte, err error) {
		t.Helper()
		if err == nil {
			err = os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	template := func(serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "meshrun test"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		}
	}
	root, leaf := template(1), template(2)
	root.IsCA, root.KeyUsage = true, x509.KeyUsageCertSign
	leaf.KeyUsage, leaf.IPAddresses = x509.KeyUsageDigitalSignature, []net.IP{net.IPv4(127, 0, 0, 1)}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	rootKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, &rootKey.PublicKey, rootKey)
	write(out.ca, "CERTIFICATE", der, err)
	der, err = x509.CreateCertificate(rand.Reader, leaf, root, &leafKey.PublicKey, rootKey)
	write(out.cert, "CERTIFICATE", der, err)
	der, err = x509.MarshalECPrivateKey(leafKey)
	write(out.key, "EC PRIVATE KEY", der, err)
	return out
}

// secureConsul starts a Consul that lets nobody in over TLS but who has a
// certificate, and returns where.
func secureConsul(t *testing.T, files issued) (port int) {
	t.Helper()
	for attempt := 1; ; attempt++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = l.Addr().(*net.TCPAddr).Port
		l.Close()
		c, err := consultest.Start(t.Context(), consultest.Options{Config: fmt.Sprintf(
			"connect { enabled = true } ports { https = %d } tls { https { ca_file = %q, cert_file = %q, key_file = %q, verify_incoming = true } }",
			port, files.ca, files.cert, files.key)})
		if err == nil {
			t.Cleanup(c.Kill)
			return port
		}
		// Somebody may take the port before Consul does.
		if attempt == 5 || !strings.Contains(err.Error(), "address already in use") {
			t.Fatal(err)
		}
	}
}

// Consul's own environment, and the same in the configuration file.
func TestConsulIsReachedOverTLSAsItsOwnToolsReachIt(t *testing.T) {
	t.Parallel()
	files := issue(t)
	port := secureConsul(t, files)
	for name, c := range map[string]struct {
		config string
		env    []string
	}{
		"environment": {"consul {}", []string{
			fmt.Sprintf("CONSUL_HTTP_ADDR=127.0.0.1:%d", port), "CONSUL_HTTP_SSL=true",
			"CONSUL_CACERT=" + files.ca, "CONSUL_CLIENT_CERT=" + files.cert, "CONSUL_CLIENT_KEY=" + files.key,
		}},
		"file": {fmt.Sprintf("consul {\n  address = \"https://127.0.0.1:%d\"\n  ca_file = %q\n  cert_file = %q\n  key_file = %q\n}", port, files.ca, files.cert, files.key), nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.env = c.env
			n.start("-config", n.write("agent.hcl", fmt.Sprintf("node = %q\n%s\npeers { listen = \"127.0.0.1:0\" }\n", name, c.config)))
			n.apply(strings.ReplaceAll(sleeper(""), `job "web"`, fmt.Sprintf("job %q", name)))
			n.waitPhase(name+"/app/0", spec.PhaseRunning)
			if out := n.must("nodes"); !strings.Contains(out, name) {
				t.Errorf("it is not in the cluster:\n%s", out)
			}
			n.must("stop", "-purge", name)
		})
	}
}

func TestAConsulWhoseCertificateIsNotTrustedIsNotUsed(t *testing.T) {
	t.Parallel()
	port := secureConsul(t, issue(t))
	stranger := issue(t)
	n := newNode(t)
	n.start("-config", n.write("agent.hcl", fmt.Sprintf("node = \"n1\"\nconsul {\n  address = \"https://127.0.0.1:%d\"\n  ca_file = %q\n}\npeers { listen = \"127.0.0.1:0\" }\n", port, stranger.ca)))
	r := n.run("apply", "-yes", n.write("job.hcl", sleeper("")))
	if r.code == 0 || !strings.Contains(r.stderr, "certificate signed by unknown authority") {
		t.Errorf("apply: exit %d, want one that says why:\n%s%s", r.code, r.stdout, r.stderr)
	}
}
