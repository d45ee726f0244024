package spec

import "fmt"

// update refuses rollouts that could not succeed, or whose parts contradict
// each other.
func (v *validator) update(p *Process) {
	u := p.Update
	if u == nil {
		return
	}
	if u.MaxParallel < 1 {
		v.add(p.Name, "update.max_parallel", "Nothing would ever be changed",
			"max_parallel is how many shards may be down at a time for a change. Set it to 1 or more.")
	}
	v.canary(p, u)
	if u.HealthyDeadline <= u.MinHealthy {
		v.add(p.Name, "update.healthy_deadline", fmt.Sprintf("No shard can be healthy for %s within %s", u.MinHealthy, u.HealthyDeadline),
			fmt.Sprintf("healthy_deadline is for the start and for min_healthy after it, so every rollout would fail. Set it to more than %q, or min_healthy to less than %q.",
				u.MinHealthy, u.HealthyDeadline))
	}
	if u.ProgressDeadline < u.HealthyDeadline {
		v.add(p.Name, "update.progress_deadline", fmt.Sprintf("The rollout would fail after %s, before a shard has had its %s", u.ProgressDeadline, u.HealthyDeadline),
			fmt.Sprintf("Set progress_deadline to %q or more, or healthy_deadline to %q or less.", u.HealthyDeadline, u.ProgressDeadline))
	}
	if u.Stagger > 0 && u.Stagger >= u.ProgressDeadline {
		v.add(p.Name, "update.stagger", fmt.Sprintf("The rollout would fail after %s, before the next change", u.ProgressDeadline),
			fmt.Sprintf("Between two changes nothing becomes healthy. Set stagger to less than %q, or progress_deadline to more than %q.", u.ProgressDeadline, u.Stagger))
	}
}

// canary refuses trials that try nothing.
func (v *validator) canary(p *Process, u *Update) {
	switch {
	case u.Canary < 0:
		v.add(p.Name, "update.canary", fmt.Sprintf("%d shards cannot go first", u.Canary), "Write 0 for no trial, or how many shards get a new version first.")
	case u.Canary == 0 && u.AutoPromote:
		v.add(p.Name, "update.auto_promote", "There are no canaries to promote", "Set canary to how many shards get a new version first, such as 1, or remove auto_promote.")
	case u.Canary > 0 && u.Canary >= p.Shards && p.Shards > 0:
		summary, detail := "The only shard would be a canary", "Remove canary: with one shard there is nothing to try a version on first. auto_revert goes back if it fails."
		if p.Shards > 1 {
			summary = fmt.Sprintf("All %d shards would be canaries", p.Shards)
			detail = fmt.Sprintf("A trial leaves others as they are. Set canary to %d or less, or shards to more than %d.", p.Shards-1, u.Canary)
		}
		v.moot(p.Name, "update.canary", summary, detail)
	}
}

// moot adds a problem with which the job works all the same.
func (v *validator) moot(process, path, summary, detail string) {
	v.problems = append(v.problems, Problem{Process: process, Path: path, Summary: summary, Detail: detail, Moot: true})
}
