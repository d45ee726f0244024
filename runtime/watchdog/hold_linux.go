package watchdog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/synergymesh/meshrun/spec"
)

// HoldOutput keeps the content of an instance's pipes alive while no watchdog
// does, also if the instance itself ends: it opens them without reading. The
// agent holds those of all its instances. It returns an error that wraps
// os.ErrNotExist if the instance was never started.
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

// outputHolder holds the descriptors of an instance's two pipes, -1 where there
// is none. Bare ones: an os.File would put them into the runtime's poller,
// which every line that the instance writes would wake.
type outputHolder [2]int

// Close lets go of the pipes.
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
