package spec

// Ends reports whether the process is a batch process: one that shall run to
// its end, not stay up. That is said by a restart policy which lets it end, if
// nothing else speaks of a process that stays up.
func (p *Process) Ends() bool {
	return p.Restart.Policy != RestartAlways && p.Schedule == nil &&
		p.Ready == nil && p.Watchdog == nil && p.Reload == nil &&
		len(p.Ports) == 0 && len(p.Services) == 0 && len(p.Health) == 0
}
