package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/synergymesh/meshrun/spec"
)

// AgentService is the name under which Consul's CA knows every agent: the last
// part of the SPIFFE identity in its certificate.
const AgentService = spec.AgentService

// Credentials are what an agent shows to other agents, and how it judges what
// they show. Both are asked for anew at every handshake, so that a rotated
// certificate or root takes effect with the next connection. Both must be safe
// for concurrent use and must not wait for the network.
type Credentials interface {
	// Certificate returns the certificate to show now, or why there is none.
	Certificate() (*tls.Certificate, error)
	// Verify returns nil if the chain, the leaf first, is that of an agent: of
	// the one on a node (or at an address) if node is not empty, of any if it
	// is. The error says what is wrong with it.
	Verify(chain []*x509.Certificate, node string) error
}

// errNoCertificate: the other end showed nothing.
var errNoCertificate = errors.New("it showed no certificate")

// serverTLS returns how the server speaks TLS: it lets in who shows a
// certificate that the credentials accept, and logs who doesn't.
func serverTLS(cred Credentials, refused func(remote net.Addr, err error)) *tls.Config {
	certificate := func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cred.Certificate() }
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: certificate,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			remote := hello.Conn.RemoteAddr()
			return &tls.Config{
				MinVersion:     tls.VersionTLS13,
				NextProtos:     []string{"http/1.1"},
				GetCertificate: certificate,
				// Asked for here and demanded below, where the reason can be logged.
				ClientAuth:             tls.RequestClientCert,
				SessionTicketsDisabled: true,
				VerifyConnection: func(cs tls.ConnectionState) error {
					err := verify(cred, cs.PeerCertificates, "")
					if err != nil {
						refused(remote, err)
					}
					return err
				},
			}, nil
		},
	}
}

// clientTLS returns how a client speaks TLS to the agent on a node.
func clientTLS(cred Credentials, node string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		ServerName: node,
		// An agent is known by its identity, which VerifyConnection checks in
		// full, and not only by a host's name.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := verify(cred, cs.PeerCertificates, node); err != nil {
				return &untrustedError{node: node, err: err}
			}
			return nil
		},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cred.Certificate() },
	}
}

func verify(cred Credentials, chain []*x509.Certificate, node string) error {
	if len(chain) == 0 {
		return errNoCertificate
	}
	return cred.Verify(chain, node)
}

// untrustedError says that who answered is not the agent that was asked.
type untrustedError struct {
	node string
	err  error
}

func (e *untrustedError) Error() string {
	return fmt.Sprintf("who answers for %s is not trusted: %v", e.node, e.err)
}

func (e *untrustedError) Unwrap() []error { return []error{ErrForbidden, e.err} }

// CertificateName returns the name in a certificate: its URI, else its first
// DNS name, else its common name.
func CertificateName(cert *x509.Certificate) string {
	switch {
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	case cert.Subject.CommonName != "":
		return cert.Subject.CommonName
	}
	return "a certificate without a name"
}

// refusals logs connections that were refused, one a second: whoever reaches
// the port can cause them.
type refusals struct {
	logger hclog.Logger

	mu      sync.Mutex // guards what is below
	last    time.Time
	skipped int
}

func (r *refusals) refuse(remote net.Addr, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if now.Sub(r.last) < time.Second {
		r.skipped++
		return
	}
	r.logger.Warn("refused a connection", "from", remote.String(), "because", err, "others_since", r.skipped)
	r.last, r.skipped = now, 0
}

// maxPeerConns bounds the connections from the network; a peer needs a few.
const maxPeerConns = 1024

// bounded is a listener that closes what comes beyond its bound at once, so
// that nobody waits behind those who never say anything.
type bounded struct {
	net.Listener
	slots chan struct{}
}

func newBounded(l net.Listener, limit int) *bounded {
	return &bounded{Listener: l, slots: make(chan struct{}, limit)}
}

// Accept waits for a connection for which there is room.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.slots <- struct{}{}:
			return &boundedConn{Conn: conn, free: func() { <-b.slots }}, nil
		default:
			conn.Close()
		}
	}
}

// boundedConn gives its place back when it is closed.
type boundedConn struct {
	net.Conn
	once sync.Once
	free func()
}

// Close closes the connection.
func (c *boundedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.free)
	return err
}

// listenTCP listens for other agents.
func listenTCP(ctx context.Context, addr string, cred Credentials, logger hclog.Logger) (net.Listener, error) {
	if cred == nil {
		return nil, fmt.Errorf("listen on %s: there are no certificates, and nobody is let in without: %w", addr, ErrInvalid)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for other nodes: %w", err)
	}
	r := &refusals{logger: logger}
	return tls.NewListener(newBounded(l, maxPeerConns), serverTLS(cred, r.refuse)), nil
}
