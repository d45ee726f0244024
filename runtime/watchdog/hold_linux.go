package watchdog

import (
	"errors"
	"fmt"
	"io"
	"os"
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
	var h outputHolder
	for i, suffix := range [...]string{".out", ".err"} {
		fd, err := unix.Open(stem+suffix, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("hold output of %s: %w", id, err), h.Close())
		}
		// Not os.NewFile's pollable kind: nobody ever reads it.
		h[i] = os.NewFile(uintptr(fd), stem+suffix)
	}
	return &h, nil
}

// outputHolder holds the two pipes of an instance.
type outputHolder [2]*os.File

// Close lets go of the pipes.
func (h *outputHolder) Close() error {
	var errs []error
	for i, f := range h {
		if f != nil {
			errs = append(errs, f.Close())
			h[i] = nil
		}
	}
	return errors.Join(errs...)
}
