package schema

import "github.com/synergymesh/meshrun/spec"

var scheduleBlock = &Block{
	Name:  "schedule",
	Doc:   "Starts the process at times.",
	Needs: `needs timed starts, which this version of meshrun cannot do yet; remove the block (cron or a systemd timer can start the program meanwhile)`,
	Attrs: []Attr{
		{Name: "cron", Kind: KindString, Required: true, Doc: "Minute, hour, day of month, month and day of week, as in crontab(5)."},
		{Name: "time_zone", Kind: KindString, Default: "UTC", Doc: "Time zone of `cron`."},
		{Name: "overlap", Kind: KindBool, Default: "false", Doc: "Start even if the last run has not ended."},
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
	return &v
}
