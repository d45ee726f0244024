package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"sync"
	"time"
)

// tally is what clients saw.
type tally struct {
	requests int
	// first are the requests whose first instance failed, and failed those that
	// no instance answered.
	first, failed int
}

const clients = 8

// balanced asks the instances in turns, and the next one if one fails, as a
// client with a list of addresses does.
func balanced(stop <-chan struct{}, instances int, ask func(instance int) error) (tally, error) {
	var mu sync.Mutex // guards all
	var all tally
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			var t tally
			for n := c; ; n++ {
				select {
				case <-stop:
					mu.Lock()
					defer mu.Unlock()
					all.requests, all.first, all.failed = all.requests+t.requests, all.first+t.first, all.failed+t.failed
					return
				default:
				}
				t.requests++
				err := ask(n % instances)
				if err != nil {
					t.first++
				}
				for next := 1; err != nil && next < instances; next++ {
					err = ask((n + next) % instances)
				}
				if err != nil {
					t.failed++
				}
			}
		})
	}
	wg.Wait()
	return all, nil
}

const answerTimeout = 2 * time.Second

// get asks over HTTP, on connections that are kept.
func get(port int) func(instance int) error {
	client := &http.Client{Timeout: answerTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: clients}}
	return func(instance int) error {
		resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port+instance))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
}

// incr increments a number in redis, each time on a connection of its own.
func incr(port int) func(instance int) error {
	return func(instance int) error {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port+instance), answerTimeout)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("INCR hits\r\n")); err != nil {
			return err
		}
		line, err := bufio.NewReader(conn).ReadString('\n')
		if err == nil && line[0] != ':' {
			err = fmt.Errorf("redis says %q", line)
		}
		return err
	}
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkErrors   = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
	wrkStatus   = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
)

// wrk lets wrk ask one address; it has no other to go to.
func wrk(stop <-chan struct{}, url string) (tally, error) {
	cmd := exec.Command("wrk", "-t2", "-c32", "-d10s", "--timeout", "2s", url)
	out, err := cmd.Output()
	<-stop
	if err != nil {
		return tally{}, fmt.Errorf("run wrk: %w", err)
	}
	var t tally
	number := func(b []byte) int {
		n, _ := strconv.Atoi(string(b)) // the expressions let only digits through
		return n
	}
	if m := wrkRequests.FindSubmatch(out); m != nil {
		t.requests = number(m[1])
	}
	if m := wrkErrors.FindSubmatch(out); m != nil {
		t.first = number(m[1]) + number(m[2]) + number(m[3]) + number(m[4])
	}
	if m := wrkStatus.FindSubmatch(out); m != nil {
		t.first += number(m[1])
	}
	t.failed = t.first
	if t.requests == 0 {
		return t, fmt.Errorf("wrk counted nothing: %s", out)
	}
	return t, nil
}
