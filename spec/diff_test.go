package spec

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDiffIsEmptyExactlyForEqualJobs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawJob(t)
		b := mutate(t, a)
		changes := Diff(a, b)
		if equal := reflect.DeepEqual(a, b); equal != (len(changes) == 0) {
			t.Fatalf("equal %v, but %d changes %v\n%+v\n%+v", equal, len(changes), changes, a, b)
		}
		if equal := Checksum(a) == Checksum(b); equal != (len(changes) == 0) {
			t.Fatalf("checksums equal %v, but %d changes", equal, len(changes))
		}
	})
}

func TestDiffReplacesExactlyWhenTheHashDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := drawJob(t)
		b := mutate(t, a)
		for i := range a.Processes {
			p, q := &a.Processes[i], &b.Processes[i]
			changes := DiffProcess(p, q)
			if differs := ReplaceHash(p) != ReplaceHash(q); differs != (MaxEffect(changes) == EffectReplace) {
				t.Fatalf("hash differs %v, changes %+v", differs, changes)
			}
			reloads := slices.ContainsFunc(changes, func(c Change) bool { return c.Effect == EffectReload })
			if differs := ReloadInput(p) != ReloadInput(q); differs != reloads {
				t.Fatalf("reload input differs %v, changes %+v", differs, changes)
			}
		}
	})
}

func TestDiffReversedSaysTheSameTheOtherWayRound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawJob(t), drawJob(t)
		there, back := Diff(a, b), Diff(b, a)
		for i := range back {
			c := &back[i]
			c.Old, c.New, c.OldSet, c.NewSet = c.New, c.Old, c.NewSet, c.OldSet
		}
		if !reflect.DeepEqual(there, back) {
			t.Fatalf("there %+v\nback %+v", there, back)
		}
	})
}

func TestNormalizeTwiceChangesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		again := j.Clone()
		again.Normalize()
		if !reflect.DeepEqual(j, &again) {
			t.Fatalf("once %+v\ntwice %+v", j, again)
		}
	})
}

func TestSecretsAreInNoDiffAndInNoRedactedJob(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const secret = "hunter2"
		p := drawProcess(t, "x")
		p.Command = append(p.Command, secret)
		p.Env = map[string]Template{"TOKEN": secret}
		p.Sensitive = []string{"command[" + string(rune('0'+len(p.Command)-1)) + "]", "env.TOKEN"}
		j := &Job{Name: "j", Processes: []Process{p}}
		other := mutate(t, j)
		for _, c := range append(append(Diff(j, other), Diff(nil, j)...), Diff(other, j)...) {
			if strings.Contains(c.Old+c.New, secret) {
				t.Fatalf("change tells the secret: %+v", c)
			}
		}
		before := Checksum(j)
		v := (&JobVersion{Job: *j}).Redacted()
		for _, text := range append(v.Job.Processes[0].Command, v.Job.Processes[0].Env["TOKEN"]) {
			if strings.Contains(string(text), secret) {
				t.Fatalf("redacted job tells the secret: %+v", v.Job)
			}
		}
		if Checksum(j) != before {
			t.Fatal("redacting changed the original")
		}
	})
}

func TestACloneIsTheSameAndSharesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		j := drawJob(t)
		for i := range j.Processes {
			j.Processes[i].Env = map[string]Template{"A": "b"}
			j.Processes[i].Sensitive = []string{}
		}
		data, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		var decoded Job
		if err := json.Unmarshal(data, &decoded); err != nil {
			t.Fatal(err)
		}
		clone := j.Clone()
		if !reflect.DeepEqual(clone, decoded) {
			t.Fatalf("the clone differs from what a store would give back:\n%+v\n%+v", clone, decoded)
		}
		overwrite(reflect.ValueOf(&clone).Elem())
		if Checksum(j) != Checksum(&decoded) {
			t.Fatalf("writing to the clone changed the original: %+v", *j)
		}
	})
}

// overwrite changes every value that v reaches.
func overwrite(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			overwrite(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			overwrite(v.Field(i))
		}
	case reflect.Slice:
		for i := range v.Len() {
			overwrite(v.Index(i))
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			v.SetMapIndex(key, reflect.ValueOf("overwritten").Convert(v.Type().Elem()))
		}
	case reflect.String:
		v.SetString("overwritten")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}

// reachable visits every struct type below t.
func reachable(t reflect.Type, seen map[reflect.Type]bool) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		reachable(t.Elem(), seen)
	case reflect.Struct:
		if seen[t] {
			return
		}
		seen[t] = true
		for i := range t.NumField() {
			reachable(t.Field(i).Type, seen)
		}
	}
}

func TestEveryFieldOfAJobSaysWhatItsChangeMeans(t *testing.T) {
	types := map[reflect.Type]bool{}
	reachable(reflect.TypeFor[Job](), types)
	if len(types) < 15 {
		t.Fatalf("only %d types are reachable from Job", len(types))
	}
	for typ := range types {
		for i := range typ.NumField() {
			f := typ.Field(i)
			kind, _, _ := strings.Cut(f.Tag.Get("diff"), ",")
			if !slices.Contains([]string{"key", "replace", "reload", "live", "walk", "mark"}, kind) {
				t.Errorf("%s.%s has no valid diff tag: %q", typ.Name(), f.Name, f.Tag)
			}
			elem := f.Type
			for elem.Kind() == reflect.Pointer || elem.Kind() == reflect.Slice {
				elem = elem.Elem()
			}
			if (elem.Kind() == reflect.Struct) != (kind == "walk") {
				t.Errorf("%s.%s: blocks are walked, and only blocks", typ.Name(), f.Name)
			}
			if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name == "" {
				t.Errorf("%s.%s has no name in JSON", typ.Name(), f.Name)
			}
		}
	}
}

func TestDiffSpeaksAsTheUserWrites(t *testing.T) {
	old := DefaultProcess("web")
	old.Command = []Template{"serve", `--motd="hi"`}
	old.Env = map[string]Template{"PORT": "${port.http}", "TOKEN": "old"}
	old.Ports = []Port{{Name: "http", Static: 80}}
	old.Sensitive = []string{"env.TOKEN"}
	new := (&Job{Processes: []Process{old}}).Clone().Processes[0]
	new.Command[0] = "server"
	new.Env["PORT"], new.Env["TOKEN"] = "8080", "new"
	new.Restart.Delay = 0
	new.Logs.MaxSize = 1 << 30
	new.Shards = 3
	new.Ports = []Port{{Name: "admin"}, {Name: "http", Static: 81}}
	new.Ready = &Ready{Timeout: DefaultReady().Timeout}
	want := []Change{
		{"web", "command", `["serve", "--motd=\"hi\""]`, `["server", "--motd=\"hi\""]`, true, true, EffectReplace},
		{"web", "env.PORT", `"${port.http}"`, `"8080"`, true, true, EffectReplace},
		{"web", "env.TOKEN", "(sensitive)", "(sensitive)", true, true, EffectReplace},
		{"web", "shards", "1", "3", true, true, EffectLive},
		{"web", "restart.delay", `"1s"`, `"0s"`, true, true, EffectLive},
		{"web", "ready.timeout", "", `"30s"`, false, true, EffectLive},
		{"web", "logs.max_size", `"10MiB"`, `"1GiB"`, true, true, EffectLive},
		{"web", "port.admin", "", "{}", false, true, EffectReplace},
		{"web", "port.http.static", "80", "81", true, true, EffectReplace},
	}
	got := DiffProcess(&old, &new)
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("missing %+v", want[i])
		case i >= len(want):
			t.Errorf("too much: %+v", got[i])
		case got[i] != want[i]:
			t.Errorf("got  %+v\nwant %+v", got[i], want[i])
		}
	}
}

func TestANewJobListsWhatDepartsFromTheDefaults(t *testing.T) {
	p := DefaultProcess("web")
	p.Command = []Template{"serve"}
	p.Restart.Attempts = 5
	p.Ports = []Port{{Name: "http"}}
	var got []string
	for _, c := range Diff(nil, &Job{Name: "j", Labels: map[string]string{"team": "a"}, Processes: []Process{p}}) {
		if c.OldSet || !c.NewSet {
			t.Errorf("%+v is not an addition", c)
		}
		got = append(got, c.Path+" "+c.New)
	}
	want := []string{`labels.team "a"`, `command ["serve"]`, "shards 1", "restart.attempts 5", "port.http {}"}
	if !slices.Equal(got, want) {
		t.Fatalf("got %q\nwant %q", got, want)
	}
}

func TestShardCountRestartsOnlyThoseWhoKnowIt(t *testing.T) {
	for text, knows := range map[Template]bool{
		"${shard.count}":                   true,
		"a${shard.index}-${ shard.count }": true,
		`${shard["count"]}`:                true,
		`${upper("${shard.count}")}`:       true,
		"${shard.index}":                   false,
		"$${shard.count}":                  false,
		"shard.count":                      false,
		`${upper("shard.count")}`:          false,
	} {
		p := DefaultProcess("x")
		p.Env = map[string]Template{"N": text}
		if p.UsesShardCount() != knows {
			t.Errorf("%s: uses the count is %v", text, !knows)
		}
		more := p
		more.Shards = 2
		if restarts := MaxEffect(DiffProcess(&p, &more)) == EffectReplace; restarts != knows {
			t.Errorf("%s: another count restarts is %v", text, restarts)
		}
	}
}

func TestReferences(t *testing.T) {
	tests := map[Template][]string{
		"plain":                               nil,
		"${port.http}:${node.name}":           {"port.http", "node.name"},
		`${node.labels["zone"]}`:              {"node.labels"},
		`%{ if shard.index }x%{ endif }`:      {"if", "shard.index", "endif"},
		`${join("-", [node.name, "${a.b}"])}`: {"join", "node.name", "a.b"},
	}
	for tmpl, want := range tests {
		if got := tmpl.References(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tmpl, got, want)
		}
	}
}
