// Package cgroup gives instances cgroups of their own: their limits hold there,
// what the kernel killed for want of memory is counted there, and nobody leaves
// one by calling setsid.
//
// It writes to the kernel's files and to nothing else. All groups of one
// watchdog are in one directory of each hierarchy, below the watchdog's own
// cgroup where that is possible (see place.go), and a file of the data directory
// remembers which, so that a successor finds them from wherever it is started.
//
// Each generation of an instance has a group of its own, so that counters begin
// at zero, and what a killed process leaves behind holds up nobody.
package cgroup
