package health

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/synergymesh/meshrun/spec"
)

// grpcCheck asks the standard health service, over a connection that it keeps.
type grpcCheck struct {
	health *spec.Health
	how    trust
	conn   *grpc.ClientConn
}

// connect makes the connection, anew if the file of authorities has changed.
func (c *grpcCheck) connect() error {
	creds := insecure.NewCredentials()
	how, err := trustOf(c.health)
	if err != nil {
		return err
	}
	if c.conn != nil && how == c.how {
		return nil
	}
	if c.health.TLS {
		config, err := how.config()
		if err != nil {
			return err
		}
		creds = credentials.NewTLS(config)
	}
	c.close()
	// A server that comes back must be seen at the next check.
	retry := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	conn, err := grpc.NewClient("passthrough:///"+c.health.GRPC.Text(),
		grpc.WithTransportCredentials(creds), grpc.WithNoProxy(), grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("meshrun-health"), grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry}),
		grpc.WithReadBufferSize(bufferSize), grpc.WithWriteBufferSize(bufferSize),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBody), grpc.WaitForReady(true)))
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	c.conn, c.how = conn, how
	return nil
}

func (c *grpcCheck) check(ctx context.Context) Result {
	if err := c.connect(); err != nil {
		return Result{Err: err}
	}
	answer, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{Service: c.health.Service})
	if err != nil {
		return Result{Err: fault(ctx, status.Convert(err))}
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return Result{Err: fmt.Errorf("the server says %s", answer.Status)}
	}
	return Result{Output: answer.Status.String()}
}

// fault says on one line why there is no answer: what a server says, or else the
// innermost cause, without what the client wraps around it.
func fault(ctx context.Context, s *status.Status) error {
	text := strings.ToValidUTF8(strings.Join(strings.Fields(s.Message()), " "), "\uFFFD")
	text, balanced := strings.CutPrefix(text, "latest balancer error: ")
	text, dialed := strings.CutPrefix(text, "connection error: desc = ")
	switch {
	case balanced || dialed:
		if plain, err := strconv.Unquote(text); err == nil {
			text = plain
		}
		text = text[strings.LastIndex(": "+text, ": "):]
	case ctx.Err() != nil:
		return explain(ctx, s.Err())
	default:
		text = s.Code().String() + ": " + text
	}
	if letters := []rune(text); len(letters) > maxShown {
		text = string(letters[:maxShown-1]) + "…"
	}
	return errors.New(text)
}

func (c *grpcCheck) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}
