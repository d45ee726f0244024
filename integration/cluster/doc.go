// Package cluster makes hosts for the tests: each has a network of its own, its
// own processes, its own /run and boot id, and can be killed, frozen, cut off and
// brought back. All of them share the file system and the clock.
//
// Nothing of it is left when the tests' process ends, however it ends: a host
// is the namespaces of one process (package host) that ends with its standard
// input, and the kernel removes the rest. Only directories can be left, and
// the next run removes those.
package cluster
