package spec

import (
	"slices"
	"strconv"
)

// signalNumbers are Linux's numbers of the signals that have a name
// (signal(7), the column for x86 and ARM).
var signalNumbers = map[Signal]int{
	"SIGHUP": 1, "SIGINT": 2, "SIGQUIT": 3, "SIGILL": 4, "SIGTRAP": 5, "SIGABRT": 6, "SIGBUS": 7, "SIGFPE": 8,
	"SIGKILL": 9, "SIGUSR1": 10, "SIGSEGV": 11, "SIGUSR2": 12, "SIGPIPE": 13, "SIGALRM": 14, "SIGTERM": 15,
	"SIGSTKFLT": 16, "SIGCHLD": 17, "SIGCONT": 18, "SIGSTOP": 19, "SIGTSTP": 20, "SIGTTIN": 21, "SIGTTOU": 22,
	"SIGURG": 23, "SIGXCPU": 24, "SIGXFSZ": 25, "SIGVTALRM": 26, "SIGPROF": 27, "SIGWINCH": 28, "SIGIO": 29,
	"SIGPWR": 30, "SIGSYS": 31,
}

// The numbers of Linux's real-time signals, as the C library hands them out.
const (
	sigRTMin = 34
	sigRTMax = 64
)

// Number returns Linux's number of the signal, and false if there is no such
// signal. Real-time signals are written "SIGRTMIN+3".
func (s Signal) Number() (int, bool) {
	if n, ok := signalNumbers[s]; ok {
		return n, true
	}
	const rtMin = "SIGRTMIN"
	if s == rtMin {
		return sigRTMin, true
	}
	if len(s) > len(rtMin)+1 && s[:len(rtMin)+1] == rtMin+"+" {
		n, err := strconv.Atoi(string(s[len(rtMin)+1:]))
		if err == nil && n > 0 && sigRTMin+n <= sigRTMax {
			return sigRTMin + n, true
		}
	}
	return 0, false
}

// Known reports whether there is such a signal.
func (s Signal) Known() bool {
	_, ok := s.Number()
	return ok
}

// SignalOf returns the name of a signal's number: "SIGTERM" for 15,
// "SIGRTMIN+3" for 37, and the bare number for one that has no name.
func SignalOf(number int) Signal {
	for name, n := range signalNumbers {
		if n == number {
			return name
		}
	}
	switch {
	case number == sigRTMin:
		return "SIGRTMIN"
	case number > sigRTMin && number <= sigRTMax:
		return Signal("SIGRTMIN+" + strconv.Itoa(number-sigRTMin))
	default:
		return Signal(strconv.Itoa(number))
	}
}

// ParseSignal reads a signal's name, with or without its prefix and in any
// case ("SIGHUP", "hup"), or returns false.
func ParseSignal(text string) (Signal, bool) {
	s := Signal(text).canonical()
	return s, s.Known()
}

// SignalNames lists the names of the signals, in the order of their numbers.
func SignalNames() []string {
	names := make([]string, 0, len(signalNumbers))
	for n := 1; n < sigRTMin; n++ {
		if s := SignalOf(n); s.Known() {
			names = append(names, string(s))
		}
	}
	return slices.Clip(names)
}
