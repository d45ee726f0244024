package cluster

import (
	"context"
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The hosts' ports are on one bridge, in a namespace of its own, so that no
// firewall of the machine sees their frames. Every fault of the network is a
// direction there: what comes in at one port and would go out at another one.
const firewall = `
table bridge faults {
  set cut  { type ifname . ifname; }
  set slow { type ifname . ifname; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname . oifname @cut drop
    iifname . oifname @slow numgen random mod 100 < %d drop
  }
}
`

// slowLoss is the share of frames that a slow host loses, in percent.
const slowLoss = 20

// way is a direction: from one host to another one.
type way struct{ from, to *Host }

// faults are what is wrong with the network now.
type faults struct {
	cut, slow map[way]bool
}

// port is the name of the host's port on the bridge.
func (h *Host) port() string { return "p-" + h.Name }

// startSwitch boots the bridge.
func (c *Cluster) startSwitch() error {
	if err := c.bridge.start(); err != nil {
		return fmt.Errorf("start switch: %w", err)
	}
	if err := c.bridge.network("ip", "link add name br0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0\nlink set br0 up\n", "-batch", "-"); err != nil {
		return err
	}
	return c.bridge.network("nft", fmt.Sprintf(firewall, slowLoss), "-f", "-")
}

// plugIn connects a host that has just been booted. Faults that were made
// before hold on.
func (c *Cluster) plugIn(h *Host) error {
	at := fmt.Sprintf("link add name %s type veth peer name eth0 netns %d\nlink set %s master br0 up\n", h.port(), h.init.Process.Pid, h.port())
	if err := c.bridge.network("ip", at, "-batch", "-"); err != nil {
		return err
	}
	return h.network("ip", fmt.Sprintf("link set lo up\naddr add %s/24 dev eth0\nlink set eth0 up\n", h.Addr), "-batch", "-")
}

// network runs a program in the host's network, on the tests' file system.
func (h *Host) network(program, input string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(h.init.Process.Pid), "-n", "--", program}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in the network of %s: %w: %s", program, h.Name, err, strings.TrimSpace(string(text)))
	}
	return nil
}

// CutOneWay drops what from sends to any of the others, and nothing else.
func (c *Cluster) CutOneWay(from *Host, to ...*Host) error {
	for _, h := range to {
		c.faults.cut[way{from, h}] = true
	}
	return c.applyFaults()
}

// Cut drops what goes between the host and any of the others, in both
// directions.
func (c *Cluster) Cut(h *Host, others ...*Host) error {
	for _, o := range others {
		c.faults.cut[way{h, o}] = true
		c.faults.cut[way{o, h}] = true
	}
	return c.applyFaults()
}

// Isolate cuts the host off from everybody.
func (c *Cluster) Isolate(h *Host) error { return c.Cut(h, c.others(h)...) }

// Slow makes the host lose frames, in both directions.
func (c *Cluster) Slow(h *Host) error {
	for _, o := range c.others(h) {
		c.faults.slow[way{h, o}] = true
		c.faults.slow[way{o, h}] = true
	}
	return c.applyFaults()
}

// Heal ends all faults of the network.
func (c *Cluster) Heal() error {
	clear(c.faults.cut)
	clear(c.faults.slow)
	return c.applyFaults()
}

// others returns all hosts but one.
func (c *Cluster) others(h *Host) []*Host {
	return slices.DeleteFunc(c.Hosts(), func(o *Host) bool { return o == h })
}

// applyFaults tells the bridge which faults there are, in one step.
func (c *Cluster) applyFaults() error {
	var b strings.Builder
	for name, ways := range map[string]map[way]bool{"cut": c.faults.cut, "slow": c.faults.slow} {
		fmt.Fprintf(&b, "flush set bridge faults %s\n", name)
		var list []string
		for w := range maps.Keys(ways) {
			list = append(list, fmt.Sprintf("%q . %q", w.from.port(), w.to.port()))
		}
		if len(list) > 0 {
			fmt.Fprintf(&b, "add element bridge faults %s { %s }\n", name, strings.Join(list, ", "))
		}
	}
	return c.bridge.network("nft", b.String(), "-f", "-")
}
