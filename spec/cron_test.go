package spec

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const cronLayout = "2006-01-02 15:04 MST"

// Each row lists the times after From, without a gap.
func TestNext(t *testing.T) {
	for _, c := range []struct{ name, cron, zone, from, want string }{
		{"every quarter", "*/15 9-10 * * mon-fri", "UTC", "2026-11-20T10:30:00Z", "2026-11-20 10:45 UTC, 2026-11-23 09:00 UTC"},
		{"names and lists", "5,10 0 1 JAN,jul *", "UTC", "2026-01-01T00:05:00Z", "2026-01-01 00:10 UTC, 2026-07-01 00:05 UTC"},
		{"either day is enough", "0 0 13 * fri", "UTC", "2026-02-06T00:00:00Z", "2026-02-13 00:00 UTC, 2026-02-20 00:00 UTC, 2026-02-27 00:00 UTC, 2026-03-06 00:00 UTC, 2026-03-13 00:00 UTC"},
		{"a star makes it both", "0 0 */2 * fri", "UTC", "2026-02-06T00:00:00Z", "2026-02-13 00:00 UTC, 2026-02-27 00:00 UTC"},
		{"7 is Sunday", "0 0 * * 6-7", "UTC", "2026-11-24T00:00:00Z", "2026-11-28 00:00 UTC, 2026-11-29 00:00 UTC, 2026-12-05 00:00 UTC"},
		{"macro", "@monthly", "", "2026-11-24T00:00:00Z", "2026-12-01 00:00 UTC"},
		{"leap day", "0 0 29 2 *", "UTC", "2096-02-29T00:00:00Z", "2104-02-29 00:00 UTC"},
		{"seconds don't matter", "@hourly", "UTC", "2026-11-24T00:59:59.999Z", "2026-11-24 01:00 UTC, 2026-11-24 02:00 UTC"},

		{"Berlin skips 02:30", "30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00Z", "2026-03-29 03:00 CEST, 2026-03-30 02:30 CEST"},
		{"what is skipped is due once", "0,20,40 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29 03:00 CEST, 2026-03-30 02:00 CEST"},
		{"skipped and due at once are one", "0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29 03:00 CEST, 2026-03-30 02:00 CEST"},
		{"Berlin has 02:30 twice", "30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25 02:30 CEST, 2026-10-26 02:30 CET"},
		{"asked within the second", "30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", "2026-10-26 02:30 CET"},
		{"every hour goes on in spring", "0 * * * *", "Europe/Berlin", "2026-03-29T00:00:00Z", "2026-03-29 03:00 CEST, 2026-03-29 04:00 CEST"},
		{"every half hour in autumn", "*/30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", "2026-10-25 02:30 CEST, 2026-10-25 02:00 CET, 2026-10-25 02:30 CET, 2026-10-25 03:00 CET"},

		{"New York skips 02:30", "30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", "2026-03-08 03:00 EDT, 2026-03-09 02:30 EDT"},
		{"New York has 01:30 twice", "30 1 * * *", "America/New_York", "2026-10-31T12:00:00Z", "2026-11-01 01:30 EDT, 2026-11-02 01:30 EST"},
		{"Lord Howe skips half an hour", "15 2 * * *", "Australia/Lord_Howe", "2026-10-02T20:00:00Z", "2026-10-04 02:30 +11, 2026-10-05 02:15 +11"},
		{"Lord Howe has half an hour twice", "45 1 * * *", "Australia/Lord_Howe", "2026-04-03T20:00:00Z", "2026-04-05 01:45 +11, 2026-04-06 01:45 +1030"},
		{"Lord Howe at intervals", "*/15 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:30:00Z", "2026-04-05 01:45 +11, 2026-04-05 01:30 +1030, 2026-04-05 01:45 +1030, 2026-04-06 01:00 +1030"},
		{"Apia had no 30 December", "0 12 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", "2011-12-31 00:00 +14, 2011-12-31 12:00 +14"},
		{"Apia at intervals", "0 */12 * * *", "Pacific/Apia", "2011-12-29T12:00:00-10:00", "2011-12-31 00:00 +14, 2011-12-31 12:00 +14"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cron, err := ParseCron(c.cron, c.zone)
			if err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, c.from)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range strings.Split(c.want, ", ") {
				at = cron.Next(at)
				if got := at.Format(cronLayout); got != want {
					t.Errorf("got %s, want %s", got, want)
				}
				if last := cron.Last(at); !last.Equal(at) {
					t.Errorf("the last at %s is %s", at, last)
				}
			}
		})
	}
}

func TestParseCronRefuses(t *testing.T) {
	for _, c := range []struct{ cron, zone, want string }{
		{"* * * *", "", "has 4 fields: write five"},
		{"0 0 0 3 * * *", "", "has 7 fields"},
		{"60 * * * *", "", `minute: "60" is not a number from 0 to 59`},
		{"-1 * * * *", "", `minute: "" is not a number`},
		{"0 0 0 * *", "", "day of month"},
		{"0 0 * foo *", "", `month: "foo" is not a number from 1 to 12`},
		{"5/10 * * * *", "", `write "5-59/10"`},
		{"*/0 * * * *", "", `"0" is not a step`},
		{"0 22-6 * * *", "", "write two ranges"},
		{"0 0 30 2 *", "", "never comes"},
		{"@reboot", "", "write @hourly"},
		{"@every 5m", "", "write @hourly"},
		{"0 0 * * *", "Europe/Berlim", `write "UTC"`},
		{"0 0 * * *", "Local", "another one on each node"},
	} {
		if _, err := ParseCron(c.cron, c.zone); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in %q: got %v, want %q", c.cron, c.zone, err, c.want)
		}
	}
}

// drawCron draws a schedule, and a time at which something may be special.
func drawCron(t *rapid.T) (*Cron, time.Time) {
	field := func(name, any, some string) string {
		return rapid.SampledFrom([]string{any, any, some}).Draw(t, name)
	}
	minute := rapid.SampledFrom([]string{"*", "*/7", "0", "30", "5,45", "10-20/3"}).Draw(t, "minute")
	hour := rapid.SampledFrom([]string{"*", "*/3", "0", "1", "2", "1-3", "0,23"}).Draw(t, "hour")
	text := fmt.Sprintf("%s %s %s %s %s", minute, hour, field("dom", "*", "1-31/3"), field("month", "*", "3,4,10-12"), field("dow", "*", "sat-sun"))
	zone := rapid.SampledFrom([]string{"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "America/Havana", "Asia/Kathmandu"}).Draw(t, "zone")
	c, err := ParseCron(text, zone)
	if err != nil {
		t.Fatal(err)
	}
	near := rapid.SampledFrom([]string{
		"2026-03-29T01:00:00Z", "2026-10-25T01:00:00Z", "2026-03-08T07:00:00Z", "2026-11-01T06:00:00Z",
		"2026-10-03T15:30:00Z", "2026-04-04T15:00:00Z", "2011-12-30T10:00:00Z", "2026-06-15T12:00:00Z",
	}).Draw(t, "near")
	at, _ := time.Parse(time.RFC3339, near)
	return c, at.Add(time.Duration(rapid.IntRange(-172800, 172800).Draw(t, "seconds")) * time.Second)
}

func TestTicksOnlyGoForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, at := drawCron(t)
		for range 5 {
			next := c.Next(at)
			if !next.After(at) {
				t.Fatalf("after %s comes %s", at, next)
			}
			at = next
		}
	})
}

// Nothing is between a time's last tick and its next one, and each leads to
// the other.
func TestLastAndNextAreInverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, at := drawCron(t)
		last, next := c.Last(at), c.Next(at)
		if last.After(at) || !c.Last(last).Equal(last) {
			t.Fatalf("the last at %s is %s, and at that %s", at, last, c.Last(last))
		}
		if !c.Next(last).Equal(next) {
			t.Fatalf("at %s the next is %s, and after the last, %s, %s", at, next, last, c.Next(last))
		}
		if got := c.Last(next.Add(-time.Nanosecond)); !got.Equal(last) {
			t.Fatalf("just before %s the last is %s, not %s", next, got, last)
		}
		if got := c.Last(next); !got.Equal(next) {
			t.Fatalf("at %s the last is %s", next, got)
		}
	})
}

// A slow clock that looks every minute finds the same ticks.
func TestNoTickIsSkipped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c, at := drawCron(t)
		at = at.Truncate(time.Minute)
		next := c.Next(at)
		high := c.highest(at).Truncate(time.Minute)
		for range 3 * 24 * 60 {
			before := high
			at = at.Add(time.Minute)
			high = c.highest(at).Truncate(time.Minute)
			due := false
			for r := before.Add(time.Minute); !c.wild && !r.After(high); r = r.Add(time.Minute) {
				m, ok := c.match(r)
				due = due || (ok && m.Equal(r))
			}
			if c.wild {
				r := c.span(at).reading(at)
				m, ok := c.match(r)
				due = ok && m.Equal(r)
			}
			if due != at.Equal(next) {
				t.Fatalf("%s is due: %v, and the next is %s", at, due, next)
			}
			if due {
				next = c.Next(at)
			}
		}
	})
}
