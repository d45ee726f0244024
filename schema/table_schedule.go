package schema

import "github.com/synergymesh/meshrun/spec"

var scheduleBlock = &Block{
	Name: "schedule",
	Doc: "Runs the process at times; in between it is down. A time is run at most once, wherever meshrun is when it comes. " +
		"Without a `restart` block the policy is `never`; with `on-failure` a run is tried again as that says, and is the same run. " +
		"Where the clock skips a time (summer time begins) the run is at the first moment after the gap; where it shows one twice, the first time counts. " +
		"If minute or hour begins with `*`, the process runs whenever the clock shows such a time.",
	Attrs: []Attr{
		{Name: "cron", Kind: KindString, Required: true, Doc: "Minute, hour, day of month, month and day of week, as in crontab(5): numbers, names, `1-5`, `*/15`, lists with commas; or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. If both kinds of days are restricted, one of them is enough."},
		{Name: "time_zone", Kind: KindString, Default: "UTC", Doc: "Time zone of `cron`, such as `Europe/Berlin`."},
		{Name: "overlap", Kind: KindBool, Default: "false", Doc: "Start even if the last run has not ended: up to 8 runs at the same time, each in a shard of its own; needs `shards = 1`. Without it, such a time is skipped."},
		{Name: "catch_up", Kind: KindEnum, Values: []string{"none", "one"}, Default: "none", Doc: "What becomes of times that are more than a minute past, as nobody was there for them: `none` skips them, `one` runs the last of them late."},
	},
	Example: `job "reports" {
  process "nightly" {
    command = ["./report.sh"]
    schedule {
      cron      = "0 3 * * *"
      time_zone = "Europe/Berlin"
    }
  }
}`,
}

func decodeSchedule(r *reader) *spec.Schedule {
	v := spec.DefaultSchedule()
	r.str("cron", &v.Cron)
	r.str("time_zone", &v.TimeZone)
	r.boolean("overlap", &v.Overlap)
	v.CatchUp = spec.CatchUp(r.enum("catch_up"))
	return &v
}
