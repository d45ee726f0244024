package control

import (
	"errors"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state"
	"github.com/synergymesh/meshrun/spec"
)

func openTestCipher(t *testing.T, dir string) *planCipher {
	t.Helper()
	s, err := openPlanCipher(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func secretPlan() spec.JobPlan {
	process := spec.DefaultProcess("app")
	process.Env = map[string]spec.Template{"TOKEN": "hunter2"}
	process.Sensitive = []string{"env.TOKEN"}
	return spec.JobPlan{Job: "vault", Action: spec.JobCreate, To: 1, Wanted: &spec.JobVersion{
		Version: 1, Job: spec.Job{Name: "vault", Processes: []spec.Process{process}},
	}}
}

func TestASealedPlanHidesItsSecretsAndComesBackWhole(t *testing.T) {
	dir := t.TempDir()
	p := secretPlan()
	if err := openTestCipher(t, dir).encrypt(&p); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(state.Encode(p)), "hunter2") {
		t.Error("the encrypted plan shows its secret")
	}
	// Another run of the agent on the same directory has the same key.
	if err := openTestCipher(t, dir).decrypt(&p); err != nil {
		t.Fatal(err)
	}
	if got := p.Wanted.Job.Processes[0].Env["TOKEN"]; got != "hunter2" {
		t.Errorf("TOKEN is %q after opening", got)
	}
}

func TestAnAppliedPlanHoldsNoSecrets(t *testing.T) {
	p := secretPlan()
	whole := p.Wanted
	leaveNames(&p)
	shown := state.Encode(p)
	if strings.Contains(string(shown), "hunter2") {
		t.Errorf("what is shown is %s", shown)
	}
	if p.Wanted.Version != whole.Version || p.Wanted.Source != whole.Source || p.Wanted.Job.Name != whole.Job.Name {
		t.Errorf("the version is no longer named: %+v", p.Wanted)
	}
	if len(whole.Job.Processes) == 0 {
		t.Error("the version that is written has lost its job")
	}
}

func TestAnAlteredOrForeignPlanIsRefused(t *testing.T) {
	dir := t.TempDir()
	for name, alter := range map[string]func(*spec.JobPlan){
		"another job":     func(p *spec.JobPlan) { p.Job = "evil" },
		"another action":  func(p *spec.JobPlan) { p.Action = spec.JobRemove },
		"another base":    func(p *spec.JobPlan) { p.Base = 7 },
		"another version": func(p *spec.JobPlan) { p.To = 9 },
		"other contents":  func(p *spec.JobPlan) { p.Sealed[len(p.Sealed)-1] ^= 1 },
		"no seal":         func(p *spec.JobPlan) { p.Sealed = nil },
	} {
		p := secretPlan()
		s := openTestCipher(t, dir)
		if err := s.encrypt(&p); err != nil {
			t.Fatal(err)
		}
		alter(&p)
		if err := s.decrypt(&p); !errors.Is(err, errForeignPlan) {
			t.Errorf("%s: %v, want errForeignPlan", name, err)
		}
	}
	p := secretPlan()
	if err := openTestCipher(t, dir).encrypt(&p); err != nil {
		t.Fatal(err)
	}
	if err := openTestCipher(t, t.TempDir()).decrypt(&p); !errors.Is(err, errForeignPlan) {
		t.Errorf("another agent's key: %v, want errForeignPlan", err)
	}
}
