package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/synergymesh/meshrun/spec"
)

// ago returns a length of time in the two units that matter: "3m20s", "2d4h".
func ago(d time.Duration) string {
	d = max(0, d)
	switch {
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return two(int(d.Minutes()), "m", int(d.Seconds())%60, "s")
	case d < 24*time.Hour:
		return two(int(d.Hours()), "h", int(d.Minutes())%60, "m")
	default:
		return two(int(d.Hours())/24, "d", int(d.Hours())%24, "h")
	}
}

func two(a int, unitA string, b int, unitB string) string {
	if b == 0 {
		return strconv.Itoa(a) + unitA
	}
	return strconv.Itoa(a) + unitA + strconv.Itoa(b) + unitB
}

// count returns "1 instance", "3 instances".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "s") {
		return strconv.Itoa(n) + " " + noun + "es"
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// shardRange returns "job/process/0-3,7" for shards of one process.
func shardRange(job, process string, shards []int) string {
	return job + "/" + process + "/" + spec.NewShardSet(shards...).String()
}

// what tells what there is to know about an instance beside its phase.
func what(i *spec.Instance, now time.Time) string {
	var parts []string
	say := func(s string) {
		if s = oneLine(s); s != "" && !slices.Contains(parts, s) {
			parts = append(parts, s)
		}
	}
	exit := ""
	if i.LastExit != nil {
		exit = i.LastExit.String()
	}
	switch i.Phase {
	case spec.PhaseRunning:
		say(failingText(i))
		say(i.Status)
		switch {
		case exit == "" || now.Sub(i.LastExit.At) >= time.Hour:
		case i.LastExit.Cause != "":
			say("restarted " + ago(now.Sub(i.LastExit.At)) + " ago: " + i.LastExit.Cause)
		case i.Restarts > 0:
			say("restarted " + ago(now.Sub(i.LastExit.At)) + " ago after " + exit)
		}
	case spec.PhaseCompleted:
		if exit != "" {
			say(exit + ", " + ago(now.Sub(i.LastExit.At)) + " ago")
		}
	case spec.PhaseBackoff:
		say(exit)
		say(withoutExit(i.Reason, exit))
		if left := i.NextStart.Sub(now); !i.NextStart.IsZero() && left > 0 {
			say("starts again in " + ago(left+time.Second-1))
		}
	case spec.PhaseFailed:
		say(exit)
		say(withoutExit(i.Reason, exit))
	default:
		say(i.Reason)
		say(i.Status)
	}
	if i.DroppedBytes > 0 {
		say(byteCount(i.DroppedBytes) + " of output dropped")
	}
	return strings.Join(parts, "; ")
}

// withoutExit leaves out a reason that only repeats the exit.
func withoutExit(reason, exit string) string {
	if exit == "" {
		return reason
	}
	rest := strings.TrimPrefix(reason, exit)
	return strings.TrimLeft(rest, ":;, ")
}

// oneLine makes foreign text one safe line without colours.
func oneLine(s string) string {
	for {
		at := strings.Index(s, "\x1b[")
		n := 0
		if at >= 0 {
			n = colorSequence(s[at:])
		}
		if n == 0 {
			break
		}
		s = s[:at] + s[at+n:]
	}
	return plain(strings.Join(strings.Fields(s), " "))
}

func byteCount(n uint64) string {
	switch {
	case n < 1<<10:
		return strconv.FormatUint(n, 10) + "B"
	case n < 1<<20:
		return strconv.FormatUint(n>>10, 10) + "KiB"
	default:
		return strconv.FormatUint(n>>20, 10) + "MiB"
	}
}

// wholeJob returns an error that says what to write if a command that is about
// whole jobs was given a part of one.
func wholeJob(command, target string) error {
	job, _, part := strings.Cut(target, "/")
	if !part {
		return nil
	}
	return &usageError{err: fmt.Errorf("%s is about a whole job: write `meshrun %s %s`", command, command, job), command: "meshrun " + command}
}

// portsText returns "http 8080, admin 9090".
func portsText(ports map[string]int) string {
	names := make([]string, 0, len(ports))
	for name := range ports {
		names = append(names, name)
	}
	slices.Sort(names)
	for n, name := range names {
		names[n] = name + " " + strconv.Itoa(ports[name])
	}
	return strings.Join(names, ", ")
}

// servicesText returns "web:8080 passing, admin passing".
func servicesText(services []spec.Endpoint) string {
	texts := make([]string, len(services))
	for n, s := range services {
		texts[n] = s.Name
		if s.Port != 0 {
			texts[n] += ":" + strconv.Itoa(s.Port)
		}
		texts[n] += " " + string(s.State)
	}
	return strings.Join(texts, ", ")
}

// clock returns a time as people compare it with their watch: with the date if
// it isn't today's.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("2006-01-02 15:04:05")
}

// parseSince reads "5m" (so long ago), "15:04", a date or a time in RFC 3339.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return now.AddDate(0, 0, -n), nil
		}
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05", "15:04"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write how long ago (\"5m\", \"2d\"), a time of today (\"15:04\"), or \"2006-01-02 15:04\"", text)
}
