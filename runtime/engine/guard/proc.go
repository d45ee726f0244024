package guard

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of the kernel's process times: USER_HZ is 100 on every
// architecture that Go runs on.
const tick = 10 * time.Millisecond

// Processes returns all processes of the node.
func Processes() ([]Process, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	page := uint64(os.Getpagesize())
	out := make([]Process, 0, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // something else about the system
		}
		line, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended meanwhile
		}
		p, err := parseStat(line, page)
		if err != nil {
			return nil, fmt.Errorf("read process %d: %w", pid, err)
		}
		p.PID = pid
		out = append(out, p)
	}
	return out, nil
}

// parseStat reads a line of proc_pid_stat(5), in which field n of the manual is
// number n-3 of those behind the name. The name may have any character.
func parseStat(line []byte, page uint64) (Process, error) {
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) < 22 {
		return Process{}, fmt.Errorf("%q is no line of a stat file", line)
	}
	var fault error
	number := func(field int) int64 {
		n, err := strconv.ParseInt(string(fields[field-3]), 10, 64)
		if err != nil {
			fault = fmt.Errorf("field %d of %q: %w", field, line, err)
		}
		return n
	}
	p := Process{
		Parent: int(number(4)), Group: int(number(5)), Session: int(number(6)), StartTicks: uint64(number(22)),
		Zombie: fields[0][0] == 'Z', CPU: time.Duration(number(14)+number(15)+number(16)+number(17)) * tick,
		Memory: uint64(max(number(24), 0)) * page,
	}
	return p, fault
}
