// Package ledger is what processes of the tests write down about themselves,
// and the judge who reads it. All of them append to one file, with the time of
// one clock, so that "never two at once" is checked against what the processes
// did and not against what meshrun says of them.
package ledger
