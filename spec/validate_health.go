package spec

import (
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MinHealthInterval is the shortest time between two checks: shorter ones
// would keep the node busy with nothing else.
const MinHealthInterval = Duration(100 * time.Millisecond)

// MaxHealthTimeout is the longest time that an answer may take: as long as a
// check waits, it takes the place of another one.
const MaxHealthTimeout = Duration(time.Minute)

// HealthKind says what a check does: it is the name of the attribute that
// makes it so.
type HealthKind string

// The kinds of checks.
const (
	HealthHTTP   HealthKind = "url"
	HealthTCP    HealthKind = "tcp"
	HealthExec   HealthKind = "command"
	HealthGRPC   HealthKind = "grpc"
	HealthNotify HealthKind = "notify"
	HealthLog    HealthKind = "log"
)

// Kinds returns what the check is said to be; a valid one is of one kind.
func (h *Health) Kinds() []HealthKind {
	var kinds []HealthKind
	for _, k := range []struct {
		kind HealthKind
		set  bool
	}{
		{HealthHTTP, h.URL != ""}, {HealthTCP, h.TCP != ""}, {HealthExec, len(h.Command) > 0},
		{HealthGRPC, h.GRPC != ""}, {HealthNotify, h.Notify}, {HealthLog, h.Log != ""},
	} {
		if k.set {
			kinds = append(kinds, k.kind)
		}
	}
	return kinds
}

// StatusRange is a range of HTTP codes that are right.
type StatusRange struct{ First, Last int }

// ParseStatusRange reads "204" or "200-299".
func ParseStatusRange(s string) (StatusRange, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errFirst := strconv.Atoi(first)
	b, errLast := strconv.Atoi(last)
	if errFirst != nil || errLast != nil || a < 100 || b > 599 || a > b {
		return StatusRange{}, fmt.Errorf("parse status %q: want a code from 100 to 599, or a range such as 200-299", s)
	}
	return StatusRange{First: a, Last: b}, nil
}

// health checks the checks of a process.
func (v *validator) health(p *Process) {
	seen := map[string]bool{}
	for i := range p.Health {
		h := &p.Health[i]
		path := "health." + h.Name
		v.name(p.Name, path, "check", h.Name)
		if seen[h.Name] {
			v.add(p.Name, path, fmt.Sprintf("Two checks are named %q", h.Name), "Names of checks are unique within a process. Rename one of them.")
		}
		seen[h.Name] = true
		switch kinds := h.Kinds(); len(kinds) {
		case 1:
			v.healthKind(p, h, path, kinds[0])
		case 0:
			v.add(p.Name, path, "The check has no target", "Write one of url, tcp, command, grpc, notify = true and log.")
		default:
			v.add(p.Name, path, "The check is of two kinds", fmt.Sprintf("It has %s and %s. Make a health block of each.", kinds[0], kinds[1]))
		}
		v.healthTimes(p, h, path)
		if h.OnFailure == HealthRestart && p.Restart.Policy == RestartNever {
			v.add(p.Name, path+".on_failure", `on_failure = "restart" contradicts the restart policy "never"`,
				`The process would be ended and stay down. Write on_failure = "alert", or another policy in restart.`)
		}
	}
}

// healthKind checks what only some kinds of checks have.
func (v *validator) healthKind(p *Process, h *Health, path string, kind HealthKind) {
	tls := "needs url (with https) or grpc with tls = true"
	for _, a := range []struct {
		name  string
		set   bool
		right bool
		needs string
	}{
		{"method", h.Method != "", kind == HealthHTTP, "needs url"},
		{"headers", len(h.Headers) > 0, kind == HealthHTTP, "needs url"},
		{"status", len(h.Status) > 0, kind == HealthHTTP, "needs url"},
		{"body", h.Body != "", kind == HealthHTTP, "needs url"},
		{"service", h.Service != "", kind == HealthGRPC, "needs grpc"},
		{"tls", h.TLS, kind == HealthGRPC, "needs grpc; with url, write https://"},
		{"ca_file", h.CAFile != "", kind == HealthHTTP || h.TLS, tls},
		{"skip_verify", h.SkipVerify, kind == HealthHTTP || h.TLS, tls},
	} {
		if a.set && !a.right {
			v.add(p.Name, path+"."+a.name, fmt.Sprintf("%s means nothing in a check of this kind", a.name), fmt.Sprintf("It %s. Remove it.", a.needs))
		}
	}
	if h.CAFile != "" && !strings.HasPrefix(h.CAFile, "/") {
		v.add(p.Name, path+".ca_file", "The path of the file is not absolute", "Write the whole path of a file on the node, such as \"/etc/ssl/ca.pem\".")
	}
	switch kind {
	case HealthHTTP:
		v.healthHTTP(p, h, path)
	case HealthTCP:
		v.address(p, path+".tcp", h.TCP)
	case HealthGRPC:
		v.address(p, path+".grpc", h.GRPC)
	case HealthExec:
		v.healthCommand(p, h, path)
	case HealthNotify:
		if p.Ready == nil || !p.Ready.Notify {
			v.add(p.Name, path+".notify", "The process does not report when it is ready", "Add ready { notify = true } to the process, or check it in another way.")
		}
	case HealthLog:
		v.expression(p, path+".log", h.Log)
	}
}

var tokenPattern = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

func (v *validator) healthHTTP(p *Process, h *Health, path string) {
	if h.URL.IsLiteral() {
		u, err := url.Parse(h.URL.Text())
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			v.add(p.Name, path+".url", "This is not an address that can be asked over HTTP", `Write a whole address, such as "http://127.0.0.1:${port.http}/healthz".`)
		}
	}
	if h.Method != "" && !tokenPattern.MatchString(h.Method) {
		v.add(p.Name, path+".method", fmt.Sprintf("%q is not a method of HTTP", h.Method), `Write "GET", "HEAD" or another one, in capitals.`)
	}
	for name := range sortedKeys(h.Headers) {
		if !tokenPattern.MatchString(name) {
			v.add(p.Name, path+".headers."+name, fmt.Sprintf("%q is not a name for a header", name), `Write a name such as "Authorization".`)
		}
		if strings.ContainsAny(h.Headers[name].Text(), "\r\n\x00") {
			v.add(p.Name, path+".headers."+name, "The value of a header is one line", "Remove the line break.")
		}
	}
	for i, s := range h.Status {
		if _, err := ParseStatusRange(s); err != nil {
			v.add(p.Name, fmt.Sprintf("%s.status[%d]", path, i), fmt.Sprintf("%q is neither a code of HTTP nor a range of such", s), `Write codes from 100 to 599: "204" or "200-299".`)
		}
	}
	if h.Body != "" {
		v.expression(p, path+".body", h.Body)
	}
	if h.Body != "" && h.Method == "HEAD" {
		v.add(p.Name, path+".body", "An answer to HEAD has no body", "Remove body, or write another method.")
	}
}

func (v *validator) healthCommand(p *Process, h *Health, path string) {
	if h.Command[0] == "" {
		v.add(p.Name, path+".command[0]", "The program is an empty string", `The first element of command is the program to run, for example "curl".`)
	}
	for i, arg := range h.Command {
		v.nul(p, fmt.Sprintf("%s.command[%d]", path, i), string(arg))
	}
}

// address checks a literal host:port.
func (v *validator) address(p *Process, path string, t Template) {
	if !t.IsLiteral() {
		return
	}
	_, port, err := net.SplitHostPort(t.Text())
	n, errPort := strconv.Atoi(port)
	if err != nil || errPort != nil || n < 1 || n > 65535 {
		v.add(p.Name, path, fmt.Sprintf("%q is not a host with a port", t.Text()), `Write "host:port", such as "127.0.0.1:${port.main}" or "[::1]:6379".`)
	}
}

// expression checks a regular expression.
func (v *validator) expression(p *Process, path, text string) {
	if _, err := regexp.Compile(text); err != nil {
		v.add(p.Name, path, "This is not a regular expression", fmt.Sprintf("%v. The syntax is RE2's: https://github.com/google/re2/wiki/Syntax", err))
	}
}

func (v *validator) healthTimes(p *Process, h *Health, path string) {
	if h.Interval < MinHealthInterval {
		v.add(p.Name, path+".interval", fmt.Sprintf("A check every %s would keep the node busy", h.Interval), fmt.Sprintf("Set interval to at least %q; %q is usual.", MinHealthInterval, "10s"))
	}
	switch {
	case h.Timeout <= 0:
		v.add(p.Name, path+".timeout", "The timeout must be more than 0", `Set timeout to the time that an answer may take, such as "1s".`)
	case h.Timeout > MaxHealthTimeout:
		v.add(p.Name, path+".timeout", fmt.Sprintf("A timeout of %s holds up other checks", h.Timeout), fmt.Sprintf("Set timeout to %q at most.", MaxHealthTimeout))
	}
	if h.Failures < 1 || h.Successes < 1 {
		v.add(p.Name, path, "A check needs at least one result to pass or to fail", "Set failures and successes to 1 or more.")
	}
	if !slices.Contains([]HealthAction{HealthAlert, HealthWithdraw, HealthRestart}, h.OnFailure) {
		v.add(p.Name, path+".on_failure", fmt.Sprintf("%q is not known", h.OnFailure), `Write "alert", "withdraw" or "restart".`)
	}
}
