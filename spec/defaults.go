package spec

import "time"

// The defaults are applied before decoding, by presence: a decoder starts
// from DefaultProcess (or the default of the block that it has found) and
// overwrites what the user wrote. So an explicit zero, such as
// `delay = "0s"`, stays zero, and Normalize never has to guess.

// DefaultProcess returns a process on which nothing but the name is said.
func DefaultProcess(name string) Process {
	return Process{
		Name:    name,
		Shards:  1,
		Restart: DefaultRestart(),
		Stop:    DefaultStop(),
		Logs:    DefaultLogs(),
	}
}

// DefaultRestart returns the restart policy of a process without a restart block.
func DefaultRestart() Restart {
	return Restart{
		Policy:    RestartAlways,
		Delay:     Duration(time.Second),
		MaxDelay:  Duration(time.Minute),
		Attempts:  3,
		Window:    Duration(5 * time.Minute),
		Exhausted: ExhaustedFail,
		Stable:    Duration(10 * time.Second),
	}
}

// DefaultStop returns how a process without a stop block is stopped.
func DefaultStop() Stop {
	return Stop{Signal: "SIGTERM", Timeout: Duration(10 * time.Second)}
}

// DefaultReload returns an empty reload block. A process without one is never
// reloaded.
func DefaultReload() Reload { return Reload{Signal: "SIGHUP"} }

// DefaultReady returns an empty ready block. A process without one is ready as
// soon as it is started.
func DefaultReady() Ready { return Ready{Timeout: Duration(30 * time.Second)} }

// DefaultLogs returns the bounds on the output of a process without a logs block.
func DefaultLogs() Logs { return Logs{MaxSize: 10 << 20, Keep: 3} }

// DefaultDependency returns an empty depends_on block.
func DefaultDependency(process string) Dependency {
	return Dependency{Process: process, Condition: ConditionStarted}
}

// DefaultHealth returns an empty health block.
func DefaultHealth(name string) Health {
	return Health{
		Name: name, Interval: Duration(10 * time.Second), Timeout: Duration(time.Second),
		Failures: 3, Successes: 1, StartPeriod: Duration(10 * time.Second), OnFailure: HealthAlert,
	}
}

// DefaultGuard returns an empty guard block.
func DefaultGuard(kind GuardKind) Guard {
	return Guard{Name: kind, Interval: Duration(5 * time.Second), Action: GuardAlert}
}

// DefaultUpdate returns an empty update block.
func DefaultUpdate() Update {
	return Update{
		MaxParallel: 1, MinHealthy: Duration(10 * time.Second),
		HealthyDeadline: Duration(5 * time.Minute), ProgressDeadline: Duration(10 * time.Minute),
	}
}

// DefaultSchedule returns an empty schedule block.
func DefaultSchedule() Schedule { return Schedule{TimeZone: "UTC", CatchUp: CatchUpNone} }

// DefaultHook returns an empty hook block.
func DefaultHook(when HookTime) Hook { return Hook{When: when, Timeout: Duration(30 * time.Second)} }
