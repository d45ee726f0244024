package apitest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/synergymesh/meshrun/runtime/api"
)

// CA is a certificate authority for tests.
type CA struct {
	Cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewCA makes an authority with a key of its own.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	return &CA{Cert: sign(t, template, template, key, key), key: key}
}

// Leaf says what a certificate names, and until when it is good (an hour from
// now if that is zero).
type Leaf struct {
	DNS, URI string
	Until    time.Time
}

// Issue returns a certificate and its key as PEM.
func (ca *CA) Issue(t testing.TB, leaf Leaf) (cert, key []byte) {
	t.Helper()
	if leaf.Until.IsZero() {
		leaf.Until = time.Now().Add(time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: leaf.DNS},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: leaf.Until,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if leaf.DNS != "" {
		template.DNSNames = []string{leaf.DNS}
	}
	if leaf.URI != "" {
		u, err := url.Parse(leaf.URI)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs, template.IPAddresses = []*url.URL{u}, nil
	}
	private := newKey(t)
	signed := sign(t, template, ca.Cert, private, ca.key)
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return encode("CERTIFICATE", signed.Raw), encode("EC PRIVATE KEY", der)
}

// PEM returns the authority's own certificate.
func (ca *CA) PEM() []byte { return encode("CERTIFICATE", ca.Cert.Raw) }

// Write issues a certificate into files of a directory, over what is there.
func (ca *CA) Write(t testing.TB, dir string, leaf Leaf) api.CertificateFiles {
	t.Helper()
	cert, key := ca.Issue(t, leaf)
	files := api.CertificateFiles{
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), CAFile: filepath.Join(dir, "ca.pem"),
	}
	for path, text := range map[string][]byte{files.CertFile: cert, files.KeyFile: key, files.CAFile: ca.PEM()} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// Credentials issues a certificate and returns it as credentials that trust
// this authority.
func (ca *CA) Credentials(t testing.TB, leaf Leaf) api.Credentials {
	t.Helper()
	c, err := api.NewFileCredentials(ca.Write(t, t.TempDir(), leaf))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
