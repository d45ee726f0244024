// Command host is process 1 of a host of the cluster tests. Its namespaces are
// the host; it gives them a name, a /proc, a /run and a boot id of their own,
// reaps what is left to it, and ends with its standard input. The kernel then
// ends everything on the host, at once.
//
//	host NAME BOOT-ID-FILE
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

func main() {
	if err := boot(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go reap()
	if _, err := os.Stdout.WriteString("up\n"); err != nil {
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// boot makes the namespaces look like a host.
func boot(name, bootID string) error {
	if os.Getpid() != 1 {
		return errors.New("boot host: not in a namespace of its own")
	}
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	mounts := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", 0},
		{"tmpfs", "/run", "tmpfs", 0},
		{bootID, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND},
	}
	for _, m := range mounts {
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// reap waits for the processes whose parents have died.
func reap() {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	for range died {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
}
