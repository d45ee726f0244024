package local

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/synergymesh/meshrun/runtime/state"
)

// crashEnv makes the test binary a writer that never ends; see below.
const crashEnv = "MESHRUN_TEST_CRASH_STATE"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		writeForever(path)
	}
	os.Exit(m.Run())
}

// writeForever prints each key once its transaction is acknowledged.
func writeForever(path string) {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	start := s.view.Load().index
	for i := start; ; i++ {
		key := fmt.Sprintf("k/%08d", i)
		ops := []state.Op{setOp(key, strings.Repeat(key, int(i%200))), setOp("last", key)}
		if i > start+20 {
			ops = append(ops, state.Op{Kind: state.OpDelete, Key: fmt.Sprintf("k/%08d", i-20)})
		}
		if _, err := s.Txn(context.Background(), ops...); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("done", key)
	}
}

func TestNoAcknowledgedWriteIsLostWhenTheProcessIsKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.log")
	for round := range 6 {
		acknowledged := writeAndKill(t, path, 10+37*round)
		s, err := Open(t.Context(), path, Options{})
		check(t, err)
		if s.Report().Damaged() {
			t.Fatalf("round %d: %v", round, s.Report())
		}
		// One more may have been written than was told.
		last, err := s.Get(t.Context(), "last")
		check(t, err)
		if string(last.Value) < acknowledged {
			t.Fatalf("round %d: %s was acknowledged, and the last is %s", round, acknowledged, last.Value)
		}
		if _, err := s.Get(t.Context(), string(last.Value)); err != nil {
			t.Fatalf("round %d: half a transaction: %v", round, err)
		}
		check(t, s.Close())
	}
}

// writeAndKill kills a writer after it has acknowledged n writes, somewhere
// within the next one, and returns the last key that was acknowledged.
func writeAndKill(t *testing.T, path string, n int) string {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	var acknowledged string
	lines := bufio.NewScanner(out)
	for i := 0; lines.Scan(); i++ {
		word, key, _ := strings.Cut(lines.Text(), " ")
		if word != "done" {
			t.Fatalf("writer: %s", lines.Text())
		}
		acknowledged = key
		if i == n {
			check(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the writer ended by itself")
	}
	return acknowledged
}
