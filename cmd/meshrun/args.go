package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// normalizeArgs makes "-flag" mean "--flag", as HashiCorp's tools have it,
// and leaves the short flags ("-f", "-n 5", "-fn5"), the values of flags, and
// everything after "--" alone.
func normalizeArgs(root *cobra.Command, args []string) []string {
	if len(args) > 1 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd) {
		// The last word of a completion is not finished yet.
		last := len(args) - 1
		return append(append(args[:1:1], normalizeArgs(root, args[1:last])...), args[last])
	}
	cmd := root
	if found, _, err := root.Find(firstWords(args)); err == nil {
		cmd = found
	}
	cmd.InitDefaultHelpFlag()
	flags := cmd.Flags()
	flags.AddFlagSet(cmd.InheritedFlags())
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		arg = normalizeArg(flags, arg)
		out = append(out, arg)
		if takesNext(flags, arg) && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// firstWords returns the words in args that may name the command: its name and
// that of a command of it.
func firstWords(args []string) []string {
	var words []string
	for _, a := range args {
		if !strings.HasPrefix(a, "-") {
			words = append(words, a)
		}
		if len(words) == 2 {
			break
		}
	}
	return words
}

// normalizeArg doubles the dash of a long flag.
func normalizeArg(flags *pflag.FlagSet, arg string) string {
	if len(arg) < 3 || arg[0] != '-' || arg[1] == '-' {
		return arg
	}
	name, _, _ := strings.Cut(arg[1:], "=")
	if len(name) > 1 && (flags.Lookup(name) != nil || !isShort(flags, name)) {
		return "-" + arg
	}
	return arg
}

// isShort reports whether a word is a run of short flags, such as "fn5".
func isShort(flags *pflag.FlagSet, word string) bool {
	for i := range len(word) {
		f := flags.ShorthandLookup(word[i : i+1])
		if f == nil {
			return false
		}
		if f.NoOptDefVal == "" {
			return true // the rest is its value
		}
	}
	return true
}

// takesNext reports whether a flag's value is the next word.
func takesNext(flags *pflag.FlagSet, arg string) bool {
	switch {
	case len(arg) < 2 || arg[0] != '-' || strings.Contains(arg, "="):
		return false
	case strings.HasPrefix(arg, "--"):
		f := flags.Lookup(arg[2:])
		return f != nil && f.NoOptDefVal == ""
	}
	for i := 1; i < len(arg); i++ {
		f := flags.ShorthandLookup(arg[i : i+1])
		if f == nil {
			return false
		}
		if f.NoOptDefVal == "" {
			return i == len(arg)-1
		}
	}
	return false
}
