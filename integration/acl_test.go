package integration

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/spec"
)

const masterToken = "6d6d5f8c-2d4e-4a8e-9c5b-000000000001"

// consulToken makes a token of a guarded Consul that has the rights of the
// rules.
func consulToken(t *testing.T, c *consultest.Server, name, rules string) string {
	t.Helper()
	if err := c.Call(t.Context(), http.MethodPut, "/v1/acl/policy", map[string]string{"Name": name, "Rules": rules}, nil); err != nil {
		t.Fatal(err)
	}
	var made struct{ SecretID string }
	body := map[string]any{"Policies": []map[string]string{{"Name": name}}}
	if err := c.Call(t.Context(), http.MethodPut, "/v1/acl/token", body, &made); err != nil {
		t.Fatal(err)
	}
	return made.SecretID
}

// Rules as README gives them.
const (
	agentRules = `key_prefix "meshrun/" { policy = "write" }
session_prefix "" { policy = "write" }
agent_prefix "" { policy = "read" }
service "meshrun-agent" { policy = "write" }`
	readerRules   = `key_prefix "meshrun/" { policy = "read" }`
	operatorRules = `key_prefix "meshrun/" { policy = "read" }
key_prefix "meshrun/v1/jobs/" { policy = "write" }
key_prefix "meshrun/v1/history/" { policy = "write" }
key_prefix "meshrun/v1/events/" { policy = "write" }`
)

func TestWhatAUserMayDoConsulsACLsSay(t *testing.T) {
	t.Parallel()
	c, err := consultest.Start(t.Context(), consultest.Options{Token: masterToken, Config: "connect { enabled = true }"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	agent := consulToken(t, c, "agent", agentRules)
	reader, operator := consulToken(t, c, "reader", readerRules), consulToken(t, c, "operator", operatorRules)

	n := newNode(t)
	as := func(token string) {
		n.env = nil
		if token != "" {
			n.env = []string{"CONSUL_HTTP_TOKEN=" + token}
		}
	}
	as(operator)
	n.start("-config", n.write("agent.hcl", fmt.Sprintf(
		"node = \"n1\"\nconsul {\n  address = %q\n  token = %q\n}\npeers { listen = \"127.0.0.1:0\" }\n", c.Address(), agent)))
	eventually(t, patience, "the agent with its token lacks nothing", func() error {
		if out := n.must("status"); strings.Contains(out, "denied") || strings.Contains(out, "not a member") {
			return fmt.Errorf("status says:\n%s", out)
		}
		return nil
	})
	file := n.write("job.hcl", sleeper("shards = 2"))

	refused := func(who, what string, want string, args ...string) {
		t.Helper()
		r := n.run(args...)
		if r.code != 1 || !strings.Contains(r.stderr, "permission denied") || !strings.Contains(r.stderr, want) {
			t.Errorf("%s %s: exit %d, want a refusal that says %q:\n%s%s", who, what, r.code, want, r.stdout, r.stderr)
		}
		for _, secret := range []string{agent, reader, operator} {
			if strings.Contains(r.stdout+r.stderr, secret) {
				t.Errorf("%s %s: a token is shown", who, what)
			}
		}
	}
	as("")
	refused("nobody", "looks", "", "plan", file)
	refused("nobody", "applies", "", "apply", "-yes", file)

	as(reader)
	if r := n.run("plan", file); r.code != 2 {
		t.Errorf("the reader plans: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	refused("the reader", "applies", `also { policy = "write" } for key_prefix "meshrun/v1/jobs/"`, "apply", "-yes", file)
	if r := n.run("status", "-json"); r.code != 0 || strings.Contains(r.stdout, "web") {
		t.Errorf("something was applied: exit %d\n%s%s", r.code, r.stdout, r.stderr)
	}

	as(operator)
	n.must("apply", "-yes", file)
	pid := n.waitPhase("web/app/1", spec.PhaseRunning).PID

	as(reader)
	for what, args := range map[string][]string{
		"stops": {"stop", "web"}, "scales": {"scale", "web/app", "1"}, "restarts": {"restart", "web/app/1"}, "drains": {"drain", "n1"},
	} {
		refused("the reader", what, "", args...)
	}
	if i := n.waitPhase("web/app/1", spec.PhaseRunning); i.PID != pid {
		t.Errorf("what runs was touched: pid %d, now %d", pid, i.PID)
	}
	as(operator)
	n.must("scale", "web/app", "1")
	n.must("stop", "web")
}
