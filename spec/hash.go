package spec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
)

// Checksum returns the SHA-256 of the job's JSON, in hex. The job is normalized.
func Checksum(j *Job) string {
	data, err := json.Marshal(j)
	if err != nil {
		// Nothing in a Job's types can fail to marshal but a float that is
		// not a number, which no decoder lets in.
		data = []byte(err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// ReplaceHash identifies what a running instance of the process depends on: it
// changes exactly if an instance must be restarted to follow the process's
// new version. Zero values do not count, so that a field that a later version
// of meshrun adds restarts nothing.
func ReplaceHash(p *Process) string { return hashEffect(p, EffectReplace) }

// ReloadInput identifies the fields whose change makes a running instance
// reload; "" if there are none. The node adds what only it can see, the
// contents of the files, to make Launch.ReloadHash.
func ReloadInput(p *Process) string { return hashEffect(p, EffectReload) }

func hashEffect(p *Process, effect Effect) string {
	var lines []string
	for _, l := range processLeaves(p) {
		if l.effect == effect && !l.zero {
			lines = append(lines, l.path+"="+l.text+"\n")
		}
	}
	if len(lines) == 0 {
		return ""
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "")))
	return hex.EncodeToString(sum[:16])
}
