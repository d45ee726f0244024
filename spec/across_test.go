package spec

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// several makes jobs of lines such as "a/x b/y c": process x of job a depends
// on y of b and on c of its own job.
func several(lines ...string) map[string]*Job {
	jobs := map[string]*Job{}
	for _, line := range lines {
		words := strings.Fields(line)
		job, process, _ := strings.Cut(words[0], "/")
		p := DefaultProcess(process)
		for _, on := range words[1:] {
			p.DependsOn = append(p.DependsOn, DefaultDependency(on))
		}
		if jobs[job] == nil {
			jobs[job] = &Job{Name: job}
		}
		jobs[job].Processes = append(jobs[job].Processes, p)
	}
	for _, j := range jobs {
		j.Normalize()
	}
	return jobs
}

func TestCirclesAcrossJobsAreFoundOnce(t *testing.T) {
	for name, test := range map[string]struct {
		jobs []string
		want []string
	}{
		"none":              {[]string{"a/x b/y", "b/y"}, nil},
		"there and back":    {[]string{"a/x b/y", "b/y a/z", "a/z"}, nil}, // other processes of the same job
		"two jobs":          {[]string{"a/x b/y", "b/y a/x"}, []string{`job "a": process "x": depends_on.b/y: These processes wait for each other: a/x → b/y → a/x`}},
		"begun elsewhere":   {[]string{"a/x c/q", "c/q b/y", "b/y c/q"}, []string{`job "b": process "y": depends_on.c/q: These processes wait for each other: b/y → c/q → b/y`}},
		"through a job":     {[]string{"a/x p", "a/p b/y", "b/y a/x"}, []string{`job "a": process "p": depends_on.b/y: These processes wait for each other: a/p → b/y → a/x → a/p`}},
		"within a job":      {[]string{"a/x p", "a/p x", "b/y a/x"}, nil}, // Validate finds it
		"what isn't there":  {[]string{"a/x b/y c/z"}, nil},
		"first step inside": {[]string{"b/a q", "b/q c/y", "c/y b/a"}, []string{`job "b": process "a": depends_on.q: These processes wait for each other: b/a → b/q → c/y → b/a`}},
	} {
		var got []string
		for _, c := range Circles(several(test.jobs...)) {
			text, _, _ := strings.Cut(c.String(), ": None of them")
			got = append(got, text)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: found %q", name, got)
		}
	}
}

// Circles finds one if and only if there is one, however many processes and jobs.
func TestThereIsACircleIfSomeProcessReachesItself(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a/p", "b/q", "c/r", "d/s", "e/t"} // one of each job: every circle goes across
		var lines []string
		reaches := map[string]map[string]bool{}
		for _, from := range names {
			line := from
			reaches[from] = map[string]bool{}
			for _, to := range names {
				if from != to && rapid.IntRange(0, 4).Draw(t, "depends") == 0 {
					line += " " + to
					reaches[from][to] = true
				}
			}
			lines = append(lines, line)
		}
		for range names {
			for _, from := range names {
				for to := range reaches[from] {
					for next := range reaches[to] {
						reaches[from][next] = true
					}
				}
			}
		}
		ring := slices.ContainsFunc(names, func(n string) bool { return reaches[n][n] })
		if found := Circles(several(lines...)); (len(found) > 0) != ring {
			t.Fatalf("%q: there is a circle: %v; found %v", lines, ring, found)
		}
	})
}

func TestADependencyThatCannotComeTrueIsToldOf(t *testing.T) {
	jobs := several("shop/web store/redis stroe/redis store/redsi store/none store/seed", "store/redis", "store/seed", "store/none")
	for i := range jobs["shop"].Processes[0].DependsOn {
		if d := &jobs["shop"].Processes[0].DependsOn[i]; d.Process == "store/seed" {
			d.Condition = ConditionCompleted
		}
	}
	for i := range jobs["store"].Processes {
		if p := &jobs["store"].Processes[i]; p.Name == "none" {
			p.Shards = 0
		}
	}
	var got []string
	for _, p := range Unmeetable(jobs) {
		got = append(got, p.String())
	}
	want := []string{
		`job "shop": process "web": depends_on.store/none: Process "store/none" has no shards: "web" waits until it has.`,
		`job "shop": process "web": depends_on.store/redsi: Job "store" has no process "redsi": "web" waits until it has. Its processes are none, redis, seed. Did you mean "store/redis"?`,
		`job "shop": process "web": depends_on.store/seed: Process "store/seed" never completes: Its restart policy is "always", so "web" waits for ever. Give it restart { policy = "on-failure" } (or "never"), or use condition = "started".`,
		`job "shop": process "web": depends_on.stroe/redis: There is no job "stroe": "web" waits until it is applied. Did you mean "store/redis"?`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("told\n%s", strings.Join(got, "\n"))
	}
}
