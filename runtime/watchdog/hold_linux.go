package watchdog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// HoldOutput opens the pipes of an instance without reading them, so that their
// content is kept while no watchdog runs, even if the instance ends. The agent
// does so for all its instances. It returns an error that wraps os.ErrNotExist
// if the instance was never started.
func HoldOutput(dataDir string, id spec.InstanceID) (io.Closer, error) {
	stem := filepath.Join(dataDir, "watchdog", "run", runName(id))
	h := outputHolder{-1, -1}
	for i, suffix := range [...]string{".out", ".err"} {
		fd, err := unix.Open(stem+suffix, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hold output of %s: %w", id, err), h.Close())
		}
		h[i] = fd
	}
	return &h, nil
}

// outputHolder holds the descriptors of an instance's two pipes, -1 for none.
// They are no os.File, which would put them into the runtime's poller, so that
// each line that the instance writes would wake this process.
type outputHolder [2]int

// Close closes the pipes.
func (h *outputHolder) Close() error {
	var errs []error
	for i, fd := range h {
		if fd >= 0 {
			errs = append(errs, unix.Close(fd))
			h[i] = -1
		}
	}
	return errors.Join(errs...)
}
