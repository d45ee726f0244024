package integration

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state/consul/consultest"
	"github.com/synergymesh/meshrun/spec"
)

// catalogJob is a job whose shards are listed, with a tag.
func catalogJob(tag string) string {
	return fmt.Sprintf(`job "shop" {
  process "web" {
    command = [%q, "-id", "web-${shard.index}"]
    shards  = 4
    port "http" {}
    service {
      name = "shop-web"
      port = "http"
      tags = [%q]
    }
  }
}
`, workloadBinary, tag)
}

// listed is an entry of Consul's catalog.
type listed struct {
	Service struct {
		ID, Address string
		Port        int
		Tags        []string
		Meta        map[string]string
		ModifyIndex uint64
	}
	Checks []struct {
		CheckID, Status, Output string
		ModifyIndex             uint64
	}
}

// catalogOf returns what Consul tells of a service: text by ID, "passing 20001
// [v1]", and the highest index.
func catalogOf(t *testing.T, c *consultest.Server, service string) (out map[string]string, index uint64) {
	t.Helper()
	var entries []listed
	if err := c.Call(t.Context(), http.MethodGet, "/v1/health/service/"+service, nil, &entries); err != nil {
		t.Fatal(err)
	}
	out = map[string]string{}
	for _, e := range entries {
		for _, check := range e.Checks {
			if check.CheckID != "serfHealth" {
				out[e.Service.ID] = strings.TrimSpace(fmt.Sprintf("%s %d %v %s", check.Status, e.Service.Port, e.Service.Tags, check.Output))
				index = max(index, check.ModifyIndex, e.Service.ModifyIndex)
			}
		}
	}
	return out, index
}

// member starts a node of a cluster.
func member(t *testing.T, c *consultest.Server, name string) *node {
	n := newNode(t)
	config := n.write("agent.hcl", fmt.Sprintf("node = %q\nconsul { address = %q }\npeers { listen = \"127.0.0.1:0\" }\n", name, c.Address()))
	n.start("-config", config)
	return n
}

func TestConsulListsTheAgentsAndTheServicesOfWhatRuns(t *testing.T) {
	t.Parallel()
	c, err := consultest.Start(t.Context(), consultest.Options{Config: "connect { enabled = true }"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	other := map[string]any{"ID": "meshrun/n3/shop/web/0/shop-web", "Name": "others", "Port": 1}
	if err := c.Call(t.Context(), http.MethodPut, "/v1/agent/service/register", other, nil); err != nil {
		t.Fatal(err)
	}
	n1, n2 := member(t, c, "n1"), member(t, c, "n2")
	agents := func(want ...string) {
		t.Helper()
		eventually(t, patience, "the agents are listed", func() error {
			entries, _ := catalogOf(t, c, "meshrun-agent")
			var got []string
			for id, text := range entries {
				if strings.HasPrefix(text, "passing ") && !strings.HasPrefix(text, "passing 0 ") {
					got = append(got, id)
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) || len(entries) != len(want) {
				return fmt.Errorf("there are %v", entries)
			}
			return nil
		})
	}
	agents("meshrun-agent/n1", "meshrun-agent/n2")
	// services waits until the catalog agrees with what the nodes say.
	services := func(what string, shards int, tag string) []spec.Instance {
		t.Helper()
		var instances []spec.Instance
		eventually(t, patience, what, func() error {
			s, err := n1.tryStatus()
			if err != nil {
				return err
			}
			instances = s.Instances
			want := map[string]string{}
			for _, i := range instances {
				want[fmt.Sprintf("meshrun/%s/%s/shop-web", i.Node, i.ID)] = fmt.Sprintf("passing %d [%s]", i.Ports["http"], tag)
				if len(i.Services) != 1 || i.Services[0].Port != i.Ports["http"] || !slices.Equal(i.Services[0].Tags, []string{tag}) {
					return fmt.Errorf("the status shows %+v", i.Services)
				}
			}
			got, _ := catalogOf(t, c, "shop-web")
			if len(want) != shards || fmt.Sprint(got) != fmt.Sprint(want) {
				return fmt.Errorf("listed are %v, the nodes say %v", got, want)
			}
			return nil
		})
		return instances
	}
	n1.apply(catalogJob("v1"))
	first := services("the job is listed", 4, "v1")

	n1.apply(catalogJob("v2"))
	second := services("the change is listed", 4, "v2")
	for k := range first {
		if first[k].PID != second[k].PID || second[k].Generation != 1 {
			t.Errorf("%s was restarted for a tag", first[k].ID)
		}
	}

	_, before := catalogOf(t, c, "shop-web")
	agent := n2.status().Agent.PID
	if err := syscall.Kill(agent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "the agent is another one", func() error {
		s, err := n2.tryStatus()
		if err == nil && s.Agent.PID == agent {
			err = fmt.Errorf("it is %d still", agent)
		}
		return err
	})
	agents("meshrun-agent/n1", "meshrun-agent/n2")
	services("nothing is lost", 4, "v2")
	if _, after := catalogOf(t, c, "shop-web"); after != before {
		t.Errorf("the agent's restart moved the catalog from index %d to %d", before, after)
	}

	n2.destroy() // with SIGTERM to the watchdog, as an operator does
	agents("meshrun-agent/n1")
	services("all runs on n1", 4, "v2")
	n1.must("stop", "shop/web/3")
	services("what was stopped is off the list", 3, "v2")
	var all map[string]any
	if err := c.Call(t.Context(), http.MethodGet, "/v1/agent/services", nil, &all); err != nil || all["meshrun/n3/shop/web/0/shop-web"] == nil {
		t.Errorf("what was others' is gone, %v: %v", err, all)
	}
}

func TestOnOneMachineTheStatusListsServicesToo(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.start()
	n.apply(catalogJob("v1"))
	i := n.waitPhase("shop/web/0", spec.PhaseRunning)
	if len(i.Services) != 1 || i.Services[0].Name != "shop-web" || i.Services[0].Port != i.Ports["http"] || i.Services[0].State != spec.ServicePassing {
		t.Errorf("it lists %+v", i.Services)
	}
	if text := n.must("status", "shop/web/0"); !strings.Contains(text, fmt.Sprintf("shop-web:%d passing", i.Ports["http"])) {
		t.Errorf("people see:\n%s", text)
	}
}
