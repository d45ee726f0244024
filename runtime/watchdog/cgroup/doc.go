// Package cgroup gives instances cgroups of their own: their limits apply there,
// processes that the kernel killed for lack of memory are counted there, and no
// process leaves one by calling setsid.
//
// NewTree names the groups of one watchdog, which are in one directory of each
// hierarchy: below the watchdog's own cgroup where that is possible (place.go
// says where). A file in the data directory records them, so that a successor
// finds them wherever it is started. Tree.Make makes the Group of one generation
// of an instance; Group.Limit, Enter, Add, Kill, OOMKills and Remove act on it.
// Each generation has a group of its own, so that counters begin at zero, and
// what a killed process leaves behind delays nobody.
//
// The package writes to the kernel's files and decides nothing: which instance
// has a group, and with which limits, is the watchdog's matter.
//
// It is not containerd/cgroups (v3.1.3): that has no choice of a delegated
// cgroup, no fork into a group, no thread that enters one in version 1, no kill
// through pidfds where cgroup.kill is missing, and nothing that finds groups
// again, which is nearly all of this package. What it has, writing the limits,
// is 100 lines here, and would bring ebpf, dbus, protobuf and OCI's types: 4.7 MB
// more in a small program, and their memory in the process that lives longest.
package cgroup
