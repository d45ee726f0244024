package watchdog

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// CloseInherited closes every descriptor above 2 that the program that started
// this one left open, so that neither meshrun nor a process that it runs holds
// a lock or a pipe of that program. What a watchdog keeps over an upgrade stays
// open. Agent and watchdog call it first, before they open anything: every
// descriptor that a Go program opens is marked close-on-exec, and one without
// the mark was inherited.
func CloseInherited() error {
	if os.Getenv(envReexec) != "" {
		return nil // what is open was passed on by this process itself
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	var failed error
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= 2 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // ours, or that of the directory that was read
		}
		if err := unix.Close(fd); err != nil {
			failed = errors.Join(failed, fmt.Errorf("close inherited descriptor %d: %w", fd, err))
		}
	}
	return failed
}
