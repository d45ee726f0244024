package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// FindConsul returns the Consul to use: what MESHRUN_TEST_CONSUL names, else
// bin/consul below root, else the one in PATH.
func FindConsul(root string) (string, error) {
	if path := os.Getenv("MESHRUN_TEST_CONSUL"); path != "" {
		return path, nil
	}
	path, err := filepath.Abs(filepath.Join(root, "bin", "consul"))
	if err != nil {
		return "", fmt.Errorf("find Consul: %w", err)
	}
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if path, err = exec.LookPath("consul"); err != nil {
		return "", errors.New("there is no Consul: make consul")
	}
	return path, nil
}
