package spec

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestLaunchWithoutALeaseSaysNothingOfOne(t *testing.T) {
	l := Launch{ID: InstanceID{Job: "shop", Process: "web"}, Hash: "h", Argv: []string{"web"}}
	plain, err := json.Marshal(&l)
	if err != nil || strings.Contains(string(plain), "lease") {
		t.Errorf("it is written as %s, %v", plain, err)
	}
	l.Lease = "s1"
	leased, err := json.Marshal(&l)
	if err != nil || !strings.Contains(string(leased), `"lease":"s1"`) {
		t.Errorf("a leased one is written as %s, %v", leased, err)
	}
	var back Launch
	if err := json.Unmarshal(leased, &back); err != nil || back.Lease != "s1" {
		t.Errorf("it reads back as %+v, %v", back, err)
	}
}

// A time since boot takes more than the 53 bits of a JSON reader's float after
// a hundred days: it must come back exactly.
func TestLeaseKeepsItsNanoseconds(t *testing.T) {
	want := Lease{Session: "s1", Until: 1<<62 + 1}
	b, err := json.Marshal(want)
	if err != nil || string(b) != `{"session":"s1","until":4611686018427387905}` {
		t.Errorf("it is written as %s, %v", b, err)
	}
	var got Lease
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("it reads back as %+v, %v", got, err)
	}
}
