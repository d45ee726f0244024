package cluster

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Missing says what this machine lacks to make hosts, and how to get it; it is
// empty if nothing is.
func Missing() string {
	if os.Geteuid() != 0 {
		return "making hosts (network and process namespaces) needs root: run the tests as root"
	}
	for _, need := range []struct{ program, pkg string }{{"ip", "iproute2"}, {"nft", "nftables"}, {"nsenter", "util-linux"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			return fmt.Sprintf("%s is missing: apt-get install %s", need.program, need.pkg)
		}
	}
	cmd := exec.Command("nft", "add table bridge faults")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: hostNamespaces}
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("this machine does not let us make namespaces with a firewall of their own: %v: %s",
			err, strings.TrimSpace(string(bytes.ToValidUTF8(text, nil))))
	}
	return ""
}
