package schema

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// MaxIncludedFile is the largest file, in bytes, that file() reads.
const MaxIncludedFile = 256 << 10

// pureFunctions are the functions of the language whose result depends on
// their arguments alone: nodes have them too. The map is never changed.
var pureFunctions = map[string]function.Function{
	"abs":        stdlib.AbsoluteFunc,
	"ceil":       stdlib.CeilFunc,
	"coalesce":   stdlib.CoalesceFunc,
	"compact":    stdlib.CompactFunc,
	"concat":     stdlib.ConcatFunc,
	"contains":   stdlib.ContainsFunc,
	"distinct":   stdlib.DistinctFunc,
	"element":    stdlib.ElementFunc,
	"flatten":    stdlib.FlattenFunc,
	"floor":      stdlib.FloorFunc,
	"format":     stdlib.FormatFunc,
	"join":       stdlib.JoinFunc,
	"jsondecode": stdlib.JSONDecodeFunc,
	"jsonencode": stdlib.JSONEncodeFunc,
	"keys":       stdlib.KeysFunc,
	"length":     stdlib.LengthFunc,
	"lookup":     stdlib.LookupFunc,
	"lower":      stdlib.LowerFunc,
	"max":        stdlib.MaxFunc,
	"merge":      stdlib.MergeFunc,
	"min":        stdlib.MinFunc,
	"range":      stdlib.RangeFunc,
	"regex":      stdlib.RegexFunc,
	"replace":    stdlib.ReplaceFunc,
	"reverse":    stdlib.ReverseListFunc,
	"slice":      stdlib.SliceFunc,
	"sort":       stdlib.SortFunc,
	"split":      stdlib.SplitFunc,
	"substr":     stdlib.SubstrFunc,
	"tobool":     stdlib.MakeToFunc(cty.Bool),
	"tolist":     stdlib.MakeToFunc(cty.List(cty.DynamicPseudoType)),
	"tomap":      stdlib.MakeToFunc(cty.Map(cty.DynamicPseudoType)),
	"tonumber":   stdlib.MakeToFunc(cty.Number),
	"toset":      stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
	"tostring":   stdlib.MakeToFunc(cty.String),
	"trimprefix": stdlib.TrimPrefixFunc,
	"trimspace":  stdlib.TrimSpaceFunc,
	"trimsuffix": stdlib.TrimSuffixFunc,
	"upper":      stdlib.UpperFunc,
	"values":     stdlib.ValuesFunc,
	"zipmap":     stdlib.ZipmapFunc,
}

// loadOnly names the functions that are called while the files are read, and
// so cannot depend on what only the node knows.
var loadOnly = map[string]bool{"env": true, "file": true}

// Functions returns the names of all functions of the language, sorted.
func Functions() []string {
	names := sortedKeys(pureFunctions)
	return append(names, sortedKeys(loadOnly)...)
}

// functions returns all functions for the files of one directory. Each file
// that file() reads, or misses, is told to read.
func functions(dir string, lookup func(string) (string, bool), read func(path string, content []byte, err error)) map[string]function.Function {
	all := make(map[string]function.Function, len(pureFunctions)+len(loadOnly))
	for name, f := range pureFunctions {
		all[name] = f
	}
	all["env"] = envFunction(lookup)
	all["file"] = fileFunction(dir, read)
	return all
}

func envFunction(lookup func(string) (string, bool)) function.Function {
	return function.New(&function.Spec{
		Description: "Returns an environment variable of meshrun's own, or the default if it is not set.",
		Params: []function.Parameter{
			{Name: "name", Type: cty.String},
			{Name: "default", Type: cty.String, AllowNull: true},
		},
		Type: function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if v, ok := lookup(args[0].AsString()); ok {
				return cty.StringVal(v), nil
			}
			return args[1], nil
		},
	})
}

func fileFunction(dir string, read func(path string, content []byte, err error)) function.Function {
	return function.New(&function.Spec{
		Description: "Returns the text of a file; a relative path is relative to the directory of the HCL file.",
		Params:      []function.Parameter{{Name: "path", Type: cty.String}},
		Type:        function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			path := args[0].AsString()
			if !filepath.IsAbs(path) {
				path = filepath.Join(dir, path)
			}
			text, err := readBounded(path, MaxIncludedFile)
			read(path, text, err)
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			if !utf8.Valid(text) {
				return cty.NilVal, function.NewArgErrorf(0, "%s is not UTF-8 text", path)
			}
			return cty.StringVal(string(text)), nil
		},
	})
}

// errTooLarge is wrapped by readBounded for files above the limit.
var errTooLarge = errors.New("the file is too large")

// readBounded reads a regular file of at most limit bytes. It never waits, not
// even for a FIFO.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: it is not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("read %s: %w, at most %d bytes are read", path, errTooLarge, limit)
	}
	return b, nil
}
