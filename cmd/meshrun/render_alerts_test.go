package main

import (
	"strings"
	"testing"
)

func TestAStatusShowsWhatGuardsAlertOf(t *testing.T) {
	v := bigStatus()
	worker := &v.Instances[len(v.Instances)-10]
	worker.Alerts = []string{"guard \"memory\": memory is 600 MiB,\nwhich is \x1b[31mabove\x1b[0m 512MiB", "guard \"zombie\": 3 of its children have ended and are not waited for"}
	v.Instances[2].Alerts = []string{`guard "absent": it is down`}
	text := renderStatus(v, statusOptions{now: testNow()})
	for row, want := range map[string]string{
		"work/91 ": `guard "memory": memory is 600 MiB, which is above 512MiB; guard "zombie": 3 of its children have ended and are not waited for`,
		"api/2 ":   `guard "absent": it is down; SIGKILL; starts again in 4s`,
	} {
		found := ""
		for line := range strings.Lines(text) {
			if strings.HasPrefix(strings.TrimSpace(line), row) {
				found = strings.TrimSpace(line)
			}
		}
		if !strings.HasSuffix(found, want) {
			t.Errorf("the row of %s is %q, want it to end with %q in\n%s", row, found, want, text)
		}
	}
}
