package api

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// CertificateFiles names the PEM files of a certificate.
type CertificateFiles struct {
	// CertFile holds the certificate, its intermediates after it; KeyFile its
	// key; CAFile the roots that others' certificates must come from.
	CertFile, KeyFile, CAFile string
}

// FileCredentials are Credentials from files, which are read again when they
// change. While what was written is not whole, the last good ones count.
//
// Whoever has a certificate of the CA is let in, so the CA should be for this
// alone. A server's certificate must name its node, or the host that was
// dialled, or be an agent's of a Consul CA.
type FileCredentials struct {
	files CertificateFiles

	mu    sync.Mutex // guards what is below
	stamp string
	cert  *tls.Certificate
	roots *x509.CertPool
}

var _ Credentials = (*FileCredentials)(nil)

// NewFileCredentials reads the files and returns an error if they are not
// usable now.
func NewFileCredentials(files CertificateFiles) (*FileCredentials, error) {
	c := &FileCredentials{files: files}
	if _, _, err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// Certificate implements Credentials.
func (c *FileCredentials) Certificate() (*tls.Certificate, error) {
	cert, _, err := c.load()
	return cert, err
}

// Verify implements Credentials.
func (c *FileCredentials) Verify(chain []*x509.Certificate, node string) error {
	_, roots, err := c.load()
	if err != nil {
		return err
	}
	if err := VerifyChain(chain, roots, node != ""); err != nil {
		return err
	}
	if node == "" || chain[0].VerifyHostname(node) == nil || isAgent(chain[0]) {
		return nil
	}
	return fmt.Errorf("its certificate is of %s, and not of %s", CertificateName(chain[0]), node)
}

// isAgent reports whether a certificate of a Consul CA is an agent's.
func isAgent(cert *x509.Certificate) bool {
	return len(cert.URIs) == 1 && cert.URIs[0].Scheme == "spiffe" && strings.HasSuffix(cert.URIs[0].Path, "/svc/"+AgentService)
}

// VerifyChain returns nil if the chain leads to one of the roots now, for a
// server or for a client, and otherwise an error that says why not.
func VerifyChain(chain []*x509.Certificate, roots *x509.CertPool, server bool) error {
	usage := x509.ExtKeyUsageClientAuth
	if server {
		usage = x509.ExtKeyUsageServerAuth
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("check certificate of %s: %w", CertificateName(chain[0]), err)
	}
	return nil
}

// load returns what the files hold, and reads them if they have changed.
func (c *FileCredentials) load() (*tls.Certificate, *x509.CertPool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := ""
	for _, path := range []string{c.files.CertFile, c.files.KeyFile, c.files.CAFile} {
		info, err := os.Stat(path)
		if err != nil {
			return c.lastGood(fmt.Errorf("read certificates: %w", err))
		}
		stamp += fmt.Sprintf("%d %d;", info.ModTime().UnixNano(), info.Size())
	}
	if c.cert != nil && stamp == c.stamp {
		return c.cert, c.roots, nil
	}
	cert, err := tls.LoadX509KeyPair(c.files.CertFile, c.files.KeyFile)
	if err != nil {
		return c.lastGood(fmt.Errorf("read certificate %s: %w", c.files.CertFile, err))
	}
	text, err := os.ReadFile(c.files.CAFile)
	if err != nil {
		return c.lastGood(fmt.Errorf("read roots: %w", err))
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return c.lastGood(fmt.Errorf("read roots %s: %w", c.files.CAFile, errNoPEM))
	}
	c.stamp, c.cert, c.roots = stamp, &cert, roots
	return c.cert, c.roots, nil
}

var errNoPEM = errors.New("there is no certificate in it")

// lastGood returns what was read before, or the error if nothing was. mu is held.
func (c *FileCredentials) lastGood(err error) (*tls.Certificate, *x509.CertPool, error) {
	if c.cert == nil {
		return nil, nil, err
	}
	return c.cert, c.roots, nil
}
