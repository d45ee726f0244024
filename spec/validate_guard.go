package spec

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MinGuardInterval is the shortest time between two looks of a guard: each
// reads about all processes of the node.
const MinGuardInterval = Duration(time.Second)

// Bound returns what Above means: a percentage of one core for GuardCPU, bytes
// for GuardMemory, a number of processes for GuardZombie (0 if nothing is
// said), and 0 for GuardAbsent, which has none.
func (g *Guard) Bound() (float64, error) {
	switch g.Name {
	case GuardCPU:
		number, isPercent := strings.CutSuffix(g.Above, "%")
		percent, err := strconv.ParseFloat(number, 64)
		if !isPercent || err != nil || !(percent > 0 && percent <= 1e6) {
			return 0, fmt.Errorf("parse bound %q of guard cpu: want a percentage of one core, such as 95%%", g.Above)
		}
		return percent, nil
	case GuardMemory:
		size, err := ParseSize(g.Above)
		if err != nil || size <= 0 {
			return 0, fmt.Errorf("parse bound %q of guard memory: want a size, such as 512MiB", g.Above)
		}
		return float64(size), nil
	case GuardZombie:
		if g.Above == "" {
			return 0, nil
		}
		n, err := strconv.Atoi(g.Above)
		if err != nil || n < 0 {
			return 0, fmt.Errorf("parse bound %q of guard zombie: want a number of processes", g.Above)
		}
		return float64(n), nil
	case GuardAbsent:
		if g.Above != "" {
			return 0, fmt.Errorf("parse bound %q of guard absent: it has none", g.Above)
		}
		return 0, nil
	}
	return 0, fmt.Errorf("parse bound of guard %q: there is no such guard", g.Name)
}

// guards checks the guards of a process.
func (v *validator) guards(p *Process) {
	for i := range p.Guards {
		g := &p.Guards[i]
		path := "guard." + string(g.Name)
		if _, err := g.Bound(); err != nil {
			v.guardBound(p, g, path)
		}
		if g.Interval < MinGuardInterval {
			v.add(p.Name, path+".interval", fmt.Sprintf("A look every %s would keep the node busy", g.Interval),
				fmt.Sprintf("Set interval to at least %q; %q is usual.", MinGuardInterval, "5s"))
		}
		switch {
		case g.Action != GuardAlert && g.Action != GuardRestart:
			v.add(p.Name, path+".action", fmt.Sprintf("%q is not an action", g.Action), `Write "alert" or "restart".`)
		case g.Action == GuardRestart && g.Name == GuardAbsent:
			v.add(p.Name, path+".action", `A guard "absent" cannot restart: nothing runs then that could be`,
				`Write action = "alert". What brings the process back is its restart policy; exhausted = "retry" makes it go on trying.`)
		case g.Action == GuardRestart && p.Restart.Policy == RestartNever:
			v.add(p.Name, path+".action", `action = "restart" contradicts the restart policy "never"`,
				`The process would be ended and stay down. Write action = "alert", or another policy in restart.`)
		}
	}
}

func (v *validator) guardBound(p *Process, g *Guard, path string) {
	summary := fmt.Sprintf("%q is not a bound of a guard %q", g.Above, g.Name)
	switch {
	case g.Name == GuardAbsent:
		summary = `The guard "absent" takes no bound`
		path += ".above"
	case g.Above == "":
		summary = fmt.Sprintf("The guard %q has no bound", g.Name)
	default:
		path += ".above"
	}
	detail := map[GuardKind]string{
		GuardCPU:    `Write a percentage of one core: above = "95%".`,
		GuardMemory: `Write a size: above = "512MiB".`,
		GuardZombie: `Write a number of processes: above = 10.`,
		GuardAbsent: `It acts when the process is down for longer than "for". Remove above.`,
	}[g.Name]
	if detail == "" {
		detail = `The guards are "cpu", "memory", "zombie" and "absent".`
	}
	v.add(p.Name, path, summary, detail)
}
