package consul

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-hclog"
)

const (
	// identityWait is how long one blocking query for a certificate or the
	// roots lasts; the Consul agent answers earlier when it has a new one, and
	// it makes a new certificate well before the old one expires.
	identityWait = 5 * time.Minute
	// identityTimeout is what a query may take beyond its wait.
	identityTimeout = 30 * time.Second
	// A query that failed is repeated after identityRetry, doubled up to
	// identitySlowest.
	identityRetry   = time.Second
	identitySlowest = 30 * time.Second
)

// ErrNoIdentity: Consul has issued no certificate yet.
var ErrNoIdentity = errors.New("no certificate has come from Consul yet")

// Identity is what Consul's CA says a service is: a certificate of its own,
// which Consul rotates, and the roots that the others' must come from. It
// satisfies the API's Credentials.
//
// The identity in the certificate is that of the service and not of one node:
// whoever may get it (service:write on the service, in Consul's ACLs) is an
// agent of the cluster.
type Identity struct {
	client  *api.Client
	service string
	logger  hclog.Logger
	// problem notes what is wrong, or with an empty text that it is mended.
	problem func(string)

	mu    sync.Mutex // guards what is below
	cert  *tls.Certificate
	self  *url.URL // the SPIFFE identity in cert
	roots *x509.CertPool
	trust string // the trust domain of roots
}

// NewIdentity returns the identity of a service. It asks for nothing before
// Run. Problem is told in words what is wrong, and "" once it is mended.
func NewIdentity(client *api.Client, service string, logger hclog.Logger, problem func(string)) *Identity {
	return &Identity{client: client, service: service, logger: logger.Named("identity"), problem: problem}
}

// Run follows the certificate and the roots until the context ends. While
// Consul is away, the last ones stay in use.
func (i *Identity) Run(ctx context.Context) error {
	var both sync.WaitGroup
	both.Go(func() { i.follow(ctx, "certificate", i.readLeaf) })
	both.Go(func() { i.follow(ctx, "roots", i.readRoots) })
	both.Wait()
	return nil
}

// follow asks again and again, each time until there is something new.
func (i *Identity) follow(ctx context.Context, what string, read func(*api.QueryOptions) (uint64, error)) {
	var index uint64
	retry := identityRetry
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, identityWait+identityTimeout)
		next, err := read((&api.QueryOptions{WaitIndex: index, WaitTime: identityWait}).WithContext(call))
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			i.logger.Warn("cannot read from Consul's CA, trying again", "what", what, "retry_in", retry, "error", err)
			i.problem(fmt.Sprintf("Consul gives no %s for talking to other nodes, so logs and signals of other nodes may not work: %v", what, err))
			index = 0
			select {
			case <-ctx.Done():
			case <-time.After(retry):
			}
			retry = min(2*retry, identitySlowest)
			continue
		}
		retry = identityRetry
		if next < index {
			next = 0 // Consul was restored: it counts afresh
		}
		index = next
		if _, err := i.Certificate(); err == nil && i.rooted() {
			i.problem("")
		}
	}
}

func (i *Identity) rooted() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.roots != nil
}

// readLeaf reads the certificate.
func (i *Identity) readLeaf(q *api.QueryOptions) (uint64, error) {
	leaf, meta, err := i.client.Agent().ConnectCALeaf(i.service, q)
	if err != nil {
		return 0, fmt.Errorf("read certificate of %s: %w", i.service, err)
	}
	cert, err := tls.X509KeyPair([]byte(leaf.CertPEM), []byte(leaf.PrivateKeyPEM))
	if err != nil {
		return 0, fmt.Errorf("read certificate of %s: %w", i.service, err)
	}
	parsed, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return 0, fmt.Errorf("read certificate of %s: %w", i.service, err)
	}
	if len(parsed.URIs) != 1 {
		return 0, fmt.Errorf("read certificate of %s: it has %d URIs and not the one of SPIFFE", i.service, len(parsed.URIs))
	}
	cert.Leaf = parsed
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert == nil || !i.cert.Leaf.Equal(parsed) {
		i.logger.Info("have a certificate", "identity", parsed.URIs[0].String(), "until", parsed.NotAfter)
	}
	i.cert, i.self = &cert, parsed.URIs[0]
	return meta.LastIndex, nil
}

// readRoots reads the roots, all that are still trusted: during a rotation
// there are several.
func (i *Identity) readRoots(q *api.QueryOptions) (uint64, error) {
	list, meta, err := i.client.Agent().ConnectCARoots(q)
	if err != nil {
		return 0, fmt.Errorf("read roots: %w", err)
	}
	pool := x509.NewCertPool()
	n := 0
	for _, root := range list.Roots {
		for rest := []byte(root.RootCertPEM); ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return 0, fmt.Errorf("read root %s: %w", root.Name, err)
			}
			pool.AddCert(cert)
			n++
		}
	}
	if n == 0 {
		return 0, errors.New("read roots: Consul has none: is connect enabled on its servers?")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.roots, i.trust = pool, list.TrustDomain
	return meta.LastIndex, nil
}

// Certificate returns the certificate of now, or ErrNoIdentity.
func (i *Identity) Certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cert == nil {
		return nil, ErrNoIdentity
	}
	return i.cert, nil
}

// Verify returns nil if the chain, the leaf first, leads to Consul's roots now
// and the leaf has the one identity of this service in this datacenter. A name
// of a node makes it a server's; the identity does not tell nodes apart.
func (i *Identity) Verify(chain []*x509.Certificate, node string) error {
	i.mu.Lock()
	self, roots, trust := i.self, i.roots, i.trust
	i.mu.Unlock()
	if self == nil || roots == nil {
		return ErrNoIdentity
	}
	usage := x509.ExtKeyUsageClientAuth
	if node != "" {
		usage = x509.ExtKeyUsageServerAuth
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	// The identity first: it says more than that the authority is another.
	want := agentURI(trust, self, i.service)
	if got := uriOf(chain[0]); got != want {
		return fmt.Errorf("its identity is %q and not %q", got, want)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: time.Now(), KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return fmt.Errorf("check certificate of %s: %w", want, err)
	}
	return nil
}

// agentURI is the identity of the service in the trust domain of the roots, in
// our own datacenter.
func agentURI(trust string, self *url.URL, service string) string {
	dc := ""
	parts := strings.Split(strings.Trim(self.Path, "/"), "/")
	for n := 0; n+1 < len(parts); n += 2 {
		if parts[n] == "dc" {
			dc = parts[n+1]
		}
	}
	return (&url.URL{Scheme: "spiffe", Host: strings.ToLower(trust), Path: "/ns/default/dc/" + dc + "/svc/" + service}).String()
}

// uriOf is the one URI in a certificate; "" if there are none or several,
// which no certificate of Consul's has.
func uriOf(cert *x509.Certificate) string {
	if len(cert.URIs) != 1 {
		return ""
	}
	u := *cert.URIs[0]
	u.Host = strings.ToLower(u.Host)
	return u.String()
}

// Identity returns what the CA of the store's Consul says that a service is;
// see NewIdentity.
func (s *Store) Identity(service string, logger hclog.Logger, problem func(string)) *Identity {
	return NewIdentity(s.client.Client, service, logger, problem)
}

// Advertised returns the address of the local Consul agent's machine, at which
// the other machines of the cluster reach it.
func (s *Store) Advertised(ctx context.Context) (string, error) {
	var self map[string]map[string]any
	err := s.call(ctx, s.opts.Timeout, func(ctx context.Context) (err error) {
		_, err = s.client.Raw().Query("/v1/agent/self", &self, (&api.QueryOptions{}).WithContext(ctx))
		return err
	})
	addr, _ := self["Member"]["Addr"].(string)
	if err == nil && addr == "" {
		err = errors.New("it does not tell")
	}
	if err != nil {
		return "", fmt.Errorf("find the address of the Consul agent: %w", err)
	}
	return addr, nil
}
