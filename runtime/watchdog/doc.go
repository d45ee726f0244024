// Package watchdog keeps processes alive (layer L-A): the parent of everything
// that meshrun runs, and the one part that must not fail. It knows no network,
// no store and no HCL. It is told what to run by declarations over a unix
// socket, starts it, restarts it by policy by itself, and journals what
// happened, so that whoever asks can read every event from any point on.
//
// How it is made:
//
//   - One goroutine, the loop, owns all state but the leases; there are no locks
//     around it.
//     It waits for requests, for its timers (one heap, one time.Timer) and for
//     the kernel.
//   - What an instance does next is a total table of phase × event (table.go),
//     and whether and when it is restarted is a pure function (restart.go).
//   - Everything that touches the kernel is behind one small interface
//     (kernel.go), so that the loop is tested in virtual time.
//   - Processes are waited for through pidfds in one nested epoll: no thread,
//     no goroutine and no poll per process.
//   - Output flows through FIFOs that parent and child both hold open, read by
//     a pump with an epoll and a goroutine of its own.
//   - Hooks are processes of their generation like the program, forked from the same
//     queue and adopted the same way (hook.go).
//   - Leases are enforced by a goroutine of its own that waits for nothing but
//     its clock (fence.go): at the end of its lease an exclusive instance is
//     killed whatever holds up the loop, and started again only once the lease
//     is renewed (lease.go).
//   - A journal of every event is written before and after each fork, so that a
//     successor adopts what a killed watchdog left running, and nothing dies.
package watchdog
