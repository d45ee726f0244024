package consul_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/runtime/state/consul"
	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
)

const master = "6d6d5f8c-2d4e-4a8e-9c5b-000000000001"

// guarded starts a server that denies by default.
func guarded(t *testing.T) *consultest.Server {
	t.Helper()
	return start(t, consultest.Options{Token: master})
}

func start(t *testing.T, opts consultest.Options) *consultest.Server {
	t.Helper()
	s, err := consultest.Start(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return s
}

// token makes a token that has the rights of the rules.
func token(t *testing.T, s *consultest.Server, rules string) (secret, accessor string) {
	t.Helper()
	name := rand.Text()
	if err := s.Call(t.Context(), http.MethodPut, "/v1/acl/policy", map[string]string{"Name": name, "Rules": rules}, nil); err != nil {
		t.Fatal(err)
	}
	var made struct{ SecretID, AccessorID string }
	body := map[string]any{"Policies": []map[string]string{{"Name": name}}}
	if err := s.Call(t.Context(), http.MethodPut, "/v1/acl/token", body, &made); err != nil {
		t.Fatal(err)
	}
	return made.SecretID, made.AccessorID
}

// deniedWithAdvice demands ErrDenied, and the rule that would mend it.
func deniedWithAdvice(t *testing.T, what string, err error) {
	t.Helper()
	if !errors.Is(err, state.ErrDenied) || !strings.Contains(fmt.Sprint(err), `key_prefix "meshrun/" { policy = "write" }`) {
		t.Errorf("%s: got error %v, want ErrDenied with advice", what, err)
	}
}

func TestATokenWithTheRightsOfTheAdviceMayDoAll(t *testing.T) {
	t.Parallel()
	server := guarded(t)
	_, err := consul.Open(t.Context(), consul.Options{Address: server.Address()})
	deniedWithAdvice(t, "open without a token", err)
	_, rules, _ := strings.Cut(err.Error(), "needs: ")
	secret, _ := token(t, server, strings.ReplaceAll(rules, " and ", "\n"))

	s := open(t, server, consul.Options{Token: secret})
	id, err := s.CreateSession(t.Context(), state.SessionConfig{Name: "agent", TTL: state.MinSessionTTL})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, state.Op{Kind: state.OpLock, Key: state.SchedulerLock, Session: id}, set(state.JobKey("web"), "v"))
	put(t, s, state.Op{Kind: state.OpUnlock, Key: state.SchedulerLock, Session: id}, state.Op{Kind: state.OpDelete, Key: state.JobKey("web")})
	put(t, s, state.Op{Kind: state.OpDelete, Key: state.SchedulerLock})
	if got, _ := values(t, s, state.Root); len(got) != 0 {
		t.Errorf("left are %q", got)
	}
	if err := errors.Join(s.RenewSession(t.Context(), id), s.DestroySession(t.Context(), id)); err != nil {
		t.Error(err)
	}
}

func TestATokenWithTooFewRightsIsDeniedWithAdvice(t *testing.T) {
	t.Parallel()
	server := guarded(t)
	ctx := t.Context()
	put(t, open(t, server, consul.Options{Token: master}), set(state.JobKey("web"), "v"))

	for _, secret := range []string{"", "6d6d5f8c-2d4e-4a8e-9c5b-00000000dead"} {
		_, err := consul.Open(ctx, consul.Options{Address: server.Address(), Token: secret})
		deniedWithAdvice(t, "open with token "+secret, err)
	}

	reader, _ := token(t, server, `key_prefix "meshrun/" { policy = "read" }`)
	s := open(t, server, consul.Options{Token: reader})
	if got, _ := values(t, s, state.Root); !slices.Equal(got, []string{"meshrun/v1/jobs/web=v"}) {
		t.Errorf("the reader sees %q", got)
	}
	_, err := s.Txn(ctx, state.Op{Kind: state.OpCheckMissing, Key: state.JobKey("other")}, set(state.JobKey("web"), "changed"))
	deniedWithAdvice(t, "write", err)
	_, err = s.Txn(ctx, state.Op{Kind: state.OpDelete, Key: state.JobKey("web")})
	deniedWithAdvice(t, "delete", err)
	_, err = s.CreateSession(ctx, state.SessionConfig{})
	deniedWithAdvice(t, "create session", err)
	if got, _ := values(t, s, state.Root); !slices.Equal(got, []string{"meshrun/v1/jobs/web=v"}) {
		t.Errorf("then the reader sees %q", got)
	}
}

// Consul leaves silently out of a list what may not be read. A node that
// believed it would stop everything.
func TestAListIsNeverShortOrEmptyForWantOfRights(t *testing.T) {
	t.Parallel()
	server := guarded(t)
	ctx := t.Context()
	put(t, open(t, server, consul.Options{Token: master}), set(state.JobKey("web"), "v"), set(state.JobKey("api"), "v"))

	rules := `key_prefix "meshrun/v1/locks/" { policy = "write" }`
	for name, more := range map[string]string{
		"no job": "", "one job": ` key "meshrun/v1/jobs/web" { policy = "read" }`, "all but one": ` key_prefix "meshrun/v1/jobs/" { policy = "read" } key "meshrun/v1/jobs/web" { policy = "deny" }`,
	} {
		secret, _ := token(t, server, rules+more)
		_, _, err := open(t, server, consul.Options{Token: secret}).List(ctx, state.JobsPrefix)
		deniedWithAdvice(t, "list with rights to "+name, err)
	}

	// Who gave no token is not told that something was left out.
	anonymous := map[string]any{"Name": "anonymous", "Rules": rules}
	if err := server.Call(ctx, http.MethodPut, "/v1/acl/policy", anonymous, nil); err != nil {
		t.Fatal(err)
	}
	body := map[string]any{"Policies": []map[string]string{{"Name": "anonymous"}}}
	if err := server.Call(ctx, http.MethodPut, "/v1/acl/token/00000000-0000-0000-0000-000000000002", body, nil); err != nil {
		t.Fatal(err)
	}
	s := open(t, server, consul.Options{})
	_, _, err := s.List(ctx, state.JobsPrefix)
	deniedWithAdvice(t, "list without a token", err)
	_, _, err = s.Watch(ctx, state.JobsPrefix, 0)
	deniedWithAdvice(t, "watch without a token", err)
	if got, _ := values(t, s, state.LocksPrefix); len(got) != 0 {
		t.Errorf("there are locks: %q", got)
	}
}

func TestATokenThatIsDeletedInUseIsDenied(t *testing.T) {
	t.Parallel()
	// The servers' cache of tokens makes the end of one take its time.
	server := start(t, consultest.Options{Token: master, Config: `acl { token_ttl = "100ms", policy_ttl = "100ms" }`})
	secret, accessor := token(t, server, `key_prefix "meshrun/" { policy = "write" }`)
	s := open(t, server, consul.Options{Token: secret})
	put(t, s, set(state.JobKey("web"), "v"))
	if err := server.Call(t.Context(), http.MethodDelete, "/v1/acl/token/"+accessor, nil, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Watch(t.Context(), state.JobsPrefix, 0)
	deniedWithAdvice(t, "watch", err)
	_, err = s.Txn(t.Context(), set(state.JobKey("web"), "w"))
	deniedWithAdvice(t, "write", err)
}
