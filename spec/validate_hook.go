package spec

import "fmt"

// hooks checks the commands that run around a process's life.
func (v *validator) hooks(p *Process) {
	seen := map[HookTime]bool{}
	for i := range p.Hooks {
		h := &p.Hooks[i]
		path := "hook." + string(h.When)
		switch {
		case h.When != HookBeforeStart && h.When != HookAfterStop:
			v.add(p.Name, path, fmt.Sprintf("%q is not a time for a hook", h.When), `Write hook "before_start" or hook "after_stop".`)
		case seen[h.When]:
			v.add(p.Name, path, fmt.Sprintf("Two hooks %q", h.When), "A process has one of each time. Put both commands into one script.")
		}
		seen[h.When] = true
		switch {
		case len(h.Command) == 0:
			v.add(p.Name, path+".command", "The command is empty", `Write the program and its arguments as a list, for example ["./warm-up", "--fast"].`)
		case h.Command[0] == "":
			v.add(p.Name, path+".command[0]", "The program is an empty string", `The first element of command is the program to run, for example "./warm-up".`)
		}
		for k, arg := range h.Command {
			v.nul(p, fmt.Sprintf("%s.command[%d]", path, k), string(arg))
		}
		if h.Timeout <= 0 {
			v.add(p.Name, path+".timeout", "The timeout must be more than 0", `Set timeout to the time that the hook may take before it is killed, such as "30s".`)
		}
	}
}
