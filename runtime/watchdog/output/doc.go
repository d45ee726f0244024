// Package output keeps the output of instances in files, one directory per
// instance: current.log, and beside it the rotated files.
//
// Writer appends an instance's output and rotates the files; only the watchdog
// uses it. Stream reads the output of one or several instances, merged by time,
// and can wait for more; Select lists the instances that have output, and Dir is
// where an instance's output is. KeptAt tells a watchdog how much of a chunk its
// predecessor has kept. The package knows nothing of processes, pipes or other
// nodes.
//
// A file has lines in the format of the Container Runtime Interface, which every
// log shipper reads:
//
//	2026-11-23T23:35:27.123456789Z stdout F the text of the line
//
// The letter is F for the end of a line and P for a piece whose continuation
// follows later on the same stream. A piece is written at once: if the writer is
// killed, only its present chunk is lost, and a successor continues in the middle
// of the line.
//
// The name of a rotated file has the time of its rotation and the number of bytes
// that had been written to the directory at its end, so that names sort by time
// and a reader can tell exactly how much it missed by a removal:
//
//	20261123T233527.123456789Z.10485760.log
package output
