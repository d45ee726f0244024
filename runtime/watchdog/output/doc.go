// Package output keeps what instances write, one directory per instance:
// current.log, and beside it the rotated files.
//
// A file holds lines in the format of the Container Runtime Interface, which
// every log shipper reads:
//
//	2026-11-23T23:35:27.123456789Z stdout F the text of the line
//
// The letter is F for the end of a line and P for a piece whose continuation
// comes later on the same stream. A piece is written as soon as it is there,
// never held back: whoever kills the writer, only the chunk in its hands is
// lost, and a successor goes on in the middle of the line.
//
// A rotated file is named by the time of its rotation and by how many bytes
// had been written to the directory at its end, so that names sort by time and
// a reader can tell exactly how much a removal took from it:
//
//	20261123T233527.123456789Z.10485760.log
package output
