package spec

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // a machine need not have the zones
)

// Cron is the times of a schedule: the five fields of crontab(5) in a time
// zone. Minutes are its finest unit.
//
// Where the clock is set, by summer time or otherwise, it keeps the rules of
// Vixie's cron. A schedule at fixed hours runs once for each of its times: one
// that the clock skips is due at the first moment after the gap, and one that it
// shows twice is due the first time. A schedule whose minute or hour begins with
// "*" is meant to run at intervals: it runs at every moment at which the clock
// shows one of its times, as often as it does.
//
// It is our own because it must look back, too (Last), by the same rules.
type Cron struct {
	minute, hour, dom, month, dow uint64 // sets of numbers, as bits
	// either is set if one of the two kinds of days is enough: both are restricted.
	either bool
	// wild is set if the schedule is meant to run at intervals.
	wild bool
	zone *time.Location
}

// maxCronYears is within how many years a schedule comes round: 29 February may
// be eight years away.
const maxCronYears = 9

// cronField is what one of the five fields may hold.
type cronField struct {
	name     string
	min, max int
	names    []string // of the numbers from min on
}

var cronFields = [...]cronField{
	{name: "minute", max: 59},
	{name: "hour", max: 23},
	{name: "day of month", min: 1, max: 31},
	{name: "month", min: 1, max: 12, names: []string{"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "day of week", max: 7, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}},
}

var cronMacros = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

// ParseCron reads five fields or a macro such as "@daily". An empty zone is UTC.
// An error says in its words what to write instead.
func ParseCron(text, zone string) (*Cron, error) {
	c := &Cron{}
	var err error
	if c.zone, err = cronZone(zone); err != nil {
		return nil, err
	}
	line := strings.ToLower(strings.TrimSpace(text))
	if strings.HasPrefix(line, "@") {
		fields, known := cronMacros[line]
		if !known {
			return nil, fmt.Errorf("%q is not a time: write @hourly, @daily, @weekly, @monthly, @yearly or five fields", text)
		}
		line = fields
	}
	fields := strings.Fields(line)
	if len(fields) != len(cronFields) {
		return nil, fmt.Errorf("%q has %d fields: write five, which are minute, hour, day of month, month and day of week", text, len(fields))
	}
	for i, set := range []*uint64{&c.minute, &c.hour, &c.dom, &c.month, &c.dow} {
		if *set, err = cronFields[i].parse(fields[i]); err != nil {
			return nil, err
		}
	}
	if c.dow&(1<<7) != 0 { // Sunday, too
		c.dow = c.dow&^(1<<7) | 1
	}
	star := func(i int) bool { return strings.HasPrefix(fields[i], "*") }
	c.either = !star(2) && !star(4)
	c.wild = star(0) || star(1)
	if _, ever := c.match(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)); !ever {
		return nil, fmt.Errorf("%q never comes: no month has such a day", text)
	}
	return c, nil
}

func cronZone(name string) (*time.Location, error) {
	if strings.EqualFold(name, "local") {
		return nil, errors.New("the time zone \"Local\" may be another one on each node: write its name, such as \"Europe/Berlin\"")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("there is no time zone %q: write \"UTC\" or a name such as \"Europe/Berlin\"", name)
	}
	return zone, nil
}

// parse reads a field: a list of numbers, names, ranges and steps.
func (f *cronField) parse(text string) (set uint64, err error) {
	for part := range strings.SplitSeq(text, ",") {
		span, every, stepped := strings.Cut(part, "/")
		step := 1
		if stepped {
			if step, err = strconv.Atoi(every); err != nil || step < 1 {
				return 0, fmt.Errorf("%s: %q is not a step: write a number from 1 on after the \"/\"", f.name, every)
			}
		}
		first, last, ranged := strings.Cut(span, "-")
		low, high := f.min, f.max
		if span != "*" {
			if low, err = f.number(first); err != nil {
				return 0, err
			}
			high = low
		} else if f.max == 7 {
			high = 6 // else a step could count Sunday twice
		}
		if ranged {
			if high, err = f.number(last); err != nil {
				return 0, err
			}
			if high == 0 && f.max == 7 && low > 0 {
				high = 7 // fri-sun
			}
		}
		switch {
		case stepped && !ranged && span != "*":
			return 0, fmt.Errorf("%s: %q steps from one number: write %q", f.name, part, fmt.Sprintf("%s-%d/%s", span, f.max, every))
		case high < low:
			return 0, fmt.Errorf("%s: %q ends before it begins: write two ranges with a comma between them", f.name, span)
		}
		for n := low; n <= high; n += step {
			set |= 1 << n
		}
	}
	return set, nil
}

// number reads a number or a name.
func (f *cronField) number(text string) (int, error) {
	for i, name := range f.names {
		if text == name {
			return f.min + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.min || n > f.max || len(text) > 2 {
		return 0, fmt.Errorf("%s: %q is not a number from %d to %d", f.name, text, f.min, f.max)
	}
	return n, nil
}

// Zone is the time zone in which the schedule is meant.
func (c *Cron) Zone() *time.Location { return c.zone }

// Next returns the first time of the schedule after another one, zero if there
// is none.
func (c *Cron) Next(after time.Time) time.Time {
	if c.wild {
		return c.nextWild(after)
	}
	reading, ok := c.match(c.highest(after).Truncate(time.Minute).Add(time.Minute))
	if !ok {
		return time.Time{}
	}
	return c.reached(reading)
}

// Last returns the last time of the schedule that is not after another one, zero
// if there is none.
func (c *Cron) Last(at time.Time) time.Time {
	if c.wild {
		return c.lastWild(at)
	}
	reading, ok := c.matchBack(c.highest(at))
	if !ok {
		return time.Time{}
	}
	return c.reached(reading)
}

// A reading of the clock is kept as if it were UTC.

// span is a time in which the clock is not set: what it shows is UTC and offset.
// A zero start or end is one that there is not.
type span struct {
	start, end time.Time
	offset     time.Duration
}

func (c *Cron) span(at time.Time) span {
	at = at.In(c.zone)
	start, end := at.ZoneBounds()
	_, offset := at.Zone()
	return span{start, end, time.Duration(offset) * time.Second}
}

func (s span) reading(at time.Time) time.Time { return at.Add(s.offset).UTC() }

// mostSet is more than what the clock is ever set by.
const mostSet = 50 * time.Hour

// highest returns the highest reading that the clock has shown up to a time.
func (c *Cron) highest(at time.Time) time.Time {
	s := c.span(at)
	high := s.reading(at)
	for !s.start.IsZero() && at.Sub(s.start) < mostSet {
		last := s.start.Add(-time.Nanosecond)
		s = c.span(last)
		if r := s.reading(last); r.After(high) {
			high = r
		}
	}
	return high
}

// reached returns when the clock first shows a reading, or a higher one.
func (c *Cron) reached(reading time.Time) time.Time {
	s := c.span(reading.Add(-mostSet / 2))
	for {
		at := reading.Add(-s.offset)
		if at.Before(s.start) {
			at = s.start
		}
		if s.end.IsZero() || at.Before(s.end) {
			return at.In(c.zone)
		}
		s = c.span(s.end)
	}
}

func (c *Cron) nextWild(after time.Time) time.Time {
	s := c.span(after)
	from := s.reading(after).Truncate(time.Minute).Add(time.Minute)
	limit := after.AddDate(maxCronYears, 0, 0)
	for {
		reading, ok := c.match(from)
		if at := reading.Add(-s.offset); ok && (s.end.IsZero() || at.Before(s.end)) {
			return at.In(c.zone)
		}
		if s.end.IsZero() || s.end.After(limit) {
			return time.Time{}
		}
		s = c.span(s.end)
		if from = s.reading(s.start); !from.Equal(from.Truncate(time.Minute)) {
			from = from.Truncate(time.Minute).Add(time.Minute)
		}
	}
}

func (c *Cron) lastWild(at time.Time) time.Time {
	s := c.span(at)
	from := s.reading(at)
	limit := at.AddDate(-maxCronYears, 0, 0)
	for {
		reading, ok := c.matchBack(from)
		if at := reading.Add(-s.offset); ok && !at.Before(s.start) {
			return at.In(c.zone)
		}
		if s.start.IsZero() || s.start.Before(limit) {
			return time.Time{}
		}
		last := s.start.Add(-time.Nanosecond)
		s = c.span(last)
		from = s.reading(last)
	}
}

// day reports whether the schedule has times on the day of a reading.
func (c *Cron) day(t time.Time) bool {
	if c.month&(1<<int(t.Month())) == 0 {
		return false
	}
	dom, dow := c.dom&(1<<t.Day()) != 0, c.dow&(1<<int(t.Weekday())) != 0
	if c.either {
		return dom || dow
	}
	return dom && dow
}

// match returns the first matching reading from a minute on.
func (c *Cron) match(t time.Time) (time.Time, bool) {
	hour, minute := t.Hour(), t.Minute()
	day := t.Truncate(24 * time.Hour)
	for end := day.AddDate(maxCronYears, 0, 0); day.Before(end); day = day.AddDate(0, 0, 1) {
		if c.day(day) {
			for h := next(c.hour, hour); h >= 0; h = next(c.hour, h+1) {
				if h > hour {
					minute = 0
				}
				if m := next(c.minute, minute); m >= 0 {
					return day.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute), true
				}
			}
		}
		hour, minute = 0, 0
	}
	return time.Time{}, false
}

// matchBack returns the last matching reading that is not after another one.
func (c *Cron) matchBack(t time.Time) (time.Time, bool) {
	hour, minute := t.Hour(), t.Minute()
	day := t.Truncate(24 * time.Hour)
	for end := day.AddDate(-maxCronYears, 0, 0); day.After(end); day = day.AddDate(0, 0, -1) {
		if c.day(day) {
			for h := previous(c.hour, hour); h >= 0; h = previous(c.hour, h-1) {
				if h < hour {
					minute = 59
				}
				if m := previous(c.minute, minute); m >= 0 {
					return day.Add(time.Duration(h)*time.Hour + time.Duration(m)*time.Minute), true
				}
			}
		}
		hour, minute = 23, 59
	}
	return time.Time{}, false
}

// next returns the smallest number of a set from n on, -1 if there is none.
func next(set uint64, n int) int {
	if left := set >> n << n; left != 0 {
		return bits.TrailingZeros64(left)
	}
	return -1
}

// previous returns the largest number of a set up to n, -1 if there is none.
func previous(set uint64, n int) int {
	if n < 0 {
		return -1
	}
	return bits.Len64(set&(1<<(n+1)-1)) - 1
}
