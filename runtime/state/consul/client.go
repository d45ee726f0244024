package consul

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"
)

// idleConns is how many connections to Consul are kept for the next request;
// every watch holds one more while it blocks.
const idleConns = 8

// maxReason is how much is read of the text with which Consul refuses.
const maxReason = 4 << 10

// client is the library's, with what it keeps to itself.
type client struct {
	*api.Client
	config    *api.Config
	transport *http.Transport
}

func newClient(opts Options) (*client, error) {
	config := api.DefaultConfigWithLogger(opts.Logger.Named("consul-api"))
	if opts.Address != "" {
		config.Address = opts.Address
	}
	if opts.Token != "" {
		config.Token, config.TokenFile = opts.Token, ""
	}
	if opts.Datacenter != "" {
		config.Datacenter = opts.Datacenter
	}
	if opts.CAFile != "" {
		config.TLSConfig.CAFile = opts.CAFile
	}
	if opts.CertFile != "" {
		config.TLSConfig.CertFile, config.TLSConfig.KeyFile = opts.CertFile, opts.KeyFile
	}
	transport := config.Transport
	transport.MaxIdleConnsPerHost = idleConns
	// The library would dial the socket without the request's context, and
	// replace the HTTP client.
	if path, ok := strings.CutPrefix(config.Address, "unix://"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		config.Address = "localhost"
	}
	var err error
	if config.HttpClient, err = api.NewHttpClient(transport, config.TLSConfig); err != nil {
		return nil, fmt.Errorf("set up TLS: %w", err)
	}
	config.HttpClient.Transport = refuser{transport}
	c, err := api.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &client{Client: c, config: config, transport: transport}, nil
}

// refusal is an answer of Consul that is neither success nor one that the
// library understands.
type refusal struct {
	code int
	text string
	// needs is the rule that the token lacks, if it is another than for keys.
	needs string
}

// Error says what Consul said.
func (r *refusal) Error() string {
	return fmt.Sprintf("Consul answered %d: %s", r.code, r.text)
}

// refuser makes errors of Consul's refusals, because the library loses the
// code of some and the text of others.
type refuser struct{ next http.RoundTripper }

// RoundTrip sends one request.
func (t refuser) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(withToken(req))
	if err != nil {
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNotFound, http.StatusConflict:
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxReason))
	if err != nil {
		return nil, fmt.Errorf("read Consul's answer %d: %w", resp.StatusCode, err)
	}
	return nil, &refusal{code: resp.StatusCode, text: strings.TrimSpace(string(text))}
}
