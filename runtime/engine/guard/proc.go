package guard

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// tick is the unit of the kernel's process times: USER_HZ is 100 on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// Processes returns all processes of the node.
func Processes() ([]Process, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("open /proc: %w", err)
	}
	procs, err := fs.AllProcs()
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	page := uint64(os.Getpagesize())
	out := make([]Process, 0, len(procs))
	for _, p := range procs {
		s, err := p.Stat()
		if err != nil {
			continue // it has ended meanwhile
		}
		out = append(out, Process{
			PID: s.PID, Parent: s.PPID, Group: s.PGRP, Session: s.Session, StartTicks: s.Starttime, Zombie: s.State == "Z",
			CPU:    time.Duration(int64(s.UTime)+int64(s.STime)+int64(s.CUTime)+int64(s.CSTime)) * tick,
			Memory: uint64(max(s.RSS, 0)) * page,
		})
	}
	return out, nil
}
