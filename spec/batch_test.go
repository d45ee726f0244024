package spec

import "testing"

func TestWhichProcessesEnd(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *Process)
		ends   bool
	}{
		"always":     {func(p *Process) { p.Restart.Policy = RestartAlways }, false},
		"never":      {func(p *Process) { p.Restart.Policy = RestartNever }, true},
		"on-failure": {func(*Process) {}, true},
		"a port":     {func(p *Process) { p.Ports = []Port{{Name: "http"}} }, false},
		"a service":  {func(p *Process) { p.Services = []Service{{Name: "web"}} }, false},
		"a check":    {func(p *Process) { p.Health = []Health{{}} }, false},
		"READY=1":    {func(p *Process) { p.Ready = &Ready{Notify: true} }, false},
		"a watchdog": {func(p *Process) { p.Watchdog = &Watchdog{} }, false},
		"a reload":   {func(p *Process) { p.Reload = &Reload{} }, false},
		"a schedule": {func(p *Process) { p.Schedule = &Schedule{} }, false},
	} {
		p := DefaultProcess("p")
		p.Restart.Policy = RestartOnFailure
		c.change(&p)
		if p.Ends() != c.ends {
			t.Errorf("%s: it ends: %t", name, p.Ends())
		}
	}
}
