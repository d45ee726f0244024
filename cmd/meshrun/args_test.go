package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestOneDashIsAsGoodAsTwo(t *testing.T) {
	for line, want := range map[string]string{
		"status -json":                             "status --json",
		"status --json -watch":                     "status --json --watch",
		"logs -f -n 5 web":                         "logs -f -n 5 web",
		"logs -fn5 web":                            "logs -fn5 web",
		"logs -n -5 web":                           "logs -n -5 web",
		"logs -since 5m -grep -json web":           "logs --since 5m --grep -json web",
		"logs -grep=-f web":                        "logs --grep=-f web",
		"plan -var a=b -var -c=d -out -json x":     "plan --var a=b --var -c=d --out -json x",
		"agent -data-dir /x -jobs -y":              "agent --data-dir /x --jobs -y",
		"up -data-dir /x p":                        "up --data-dir /x p",
		"fmt -check -":                             "fmt --check -",
		"logs web -follow":                         "logs web --follow",
		"status -jsn":                              "status --jsn",
		"restart -- -json":                         "restart -- -json",
		"-help":                                    "--help",
		"plan -help":                               "plan --help",
		"__complete logs -data-dir /x -f":          "__complete logs --data-dir /x -f",
		"events -type instance.exited -json=false": "events --type instance.exited --json=false",
	} {
		term, _, _ := testTerm(nil)
		got := normalizeArgs(newRoot(term), strings.Fields(line))
		if !reflect.DeepEqual(got, strings.Fields(want)) {
			t.Errorf("%s: %q, want %s", line, got, want)
		}
	}
	term, _, _ := testTerm(nil)
	line := "-data-dir /x -- meshrun agent -data-dir /x"
	got := normalizeArgs(watchdogCommand(term), strings.Fields(line))
	if want := strings.Fields("--data-dir /x -- meshrun agent -data-dir /x"); !reflect.DeepEqual(got, want) {
		t.Errorf("watchdog %s: %q", line, got)
	}
}

func TestACommandLineThatIsNotUnderstoodIsExplained(t *testing.T) {
	for line, want := range map[string]string{
		"stauts":               `did you mean "status"`,
		"status -jsn":          "unknown flag: -jsn",
		"plan":                 "plan needs the files",
		"status a b/c/d":       `"d" is not a shard number`,
		"events a b":           `"b" is one argument too many`,
		"logs":                 "logs needs",
		"logs web/x/y":         `"y" is not a shard number`,
		"logs -n -1 web":       "negative",
		"logs -grep ( web":     "-grep",
		"logs -since soon web": `"soon" is not a time`,
		"scale web 3":          "write JOB/PROCESS",
		"scale web/app many":   `"many" is not a number of shards`,
		"signal NOPE web":      `"NOPE" is not a signal`,
		"stop -purge web/app":  "whole jobs",
		"history web/app":      "write `meshrun history web`",
		"revert web/app":       "write `meshrun revert web`",
		"rollback web/app/0 2": "write `meshrun rollback web`",
		"rollback web first":   `"first" is not a version`,
		"completion tcsh":      "bash, zsh and fish",
		"agent -log-level hi":  "not a log level",
	} {
		_, stderr, code := meshrun(t, nil, strings.Fields(line)...)
		if code != 1 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit %d, %q, want %q", line, code, stderr, want)
		}
	}
}

func TestHelpIsDataAndTheInternalsAreNotInIt(t *testing.T) {
	stdout, _, code := meshrun(t, nil, "-help")
	if code != 0 || !strings.Contains(stdout, "meshrun up PATH") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	for _, word := range []string{"watchdog COMMAND", "  watchdog", "no-help", "simulate"} {
		if strings.Contains(stdout, word) {
			t.Errorf("the help speaks of %q", word)
		}
	}
	stdout, _, code = meshrun(t, nil, "snapshot", "-help")
	if code != 0 || !strings.Contains(stdout, "\n  restore") || !strings.Contains(stdout, "`meshrun snapshot COMMAND -help`") {
		t.Errorf("exit %d, %q", code, stdout)
	}
	stdout, _, code = meshrun(t, nil, "agent", "-help")
	if code != 0 || strings.Contains(stdout, fromUpFlag) || strings.Contains(stdout, "--") {
		t.Errorf("exit %d, %q", code, stdout)
	}
}
