package spec

import "strings"

// maxNearest is the longest name, in bytes, for which Nearest looks for a correction.
const maxNearest = 64

// Nearest returns the known name that the given one is most likely a misspelling of, or "". Case, and "-" for "_",
// do not count as differences.
//
// It is not agext/levenshtein, which hcl uses: that counts two swapped letters as two errors, so "prot" would not
// lead to "port", and spec imports the standard library only.
func Nearest(given string, known []string) string {
	best, distance := "", max(1, min(3, len(given)/3))+1
	folded := foldName(given)
	if len(folded) > maxNearest {
		return ""
	}
	for _, k := range known {
		if d := editDistance(folded, foldName(k), distance); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func foldName(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// editDistance returns how many characters must be added, removed, replaced or swapped with their neighbour to turn
// a into b; bound if that many or more.
func editDistance(a, b string, bound int) int {
	if diff := len(a) - len(b); diff >= bound || -diff >= bound {
		return bound
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
