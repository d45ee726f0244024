// Package watchdog keeps processes alive (layer L-A). It is the parent of all
// processes that meshrun runs, and the one part that must not fail.
//
// Run is the watchdog. Clients declare over a unix socket what is to run
// (Client); the watchdog starts it, restarts it by policy on its own, and
// journals every event under a number, so that a client can read all events
// after any number. It uses no network, no store and no HCL, and decides nothing
// that needs to know another node.
//
// How it works:
//
//   - One goroutine, the loop (supervisor.go), owns all state but the leases,
//     without locks. It waits for requests, its timers (one heap, one
//     time.Timer) and the kernel.
//   - A total table of phase × event says what an instance does next (table.go);
//     lifecycle.go carries it out. Whether and when an instance is restarted is a
//     pure function (restart.go).
//   - One small interface hides the operating system (kernel.go), so that the
//     loop is tested in virtual time.
//   - A pidfd in one nested epoll reports the end of each process: there is no
//     thread, goroutine or poll per process.
//   - Output flows through FIFOs that parent and child both hold open. A pump
//     with an epoll and a goroutine of its own writes it to files (package
//     output).
//   - A hook is a process of its generation like the program: forked from the
//     same queue and adopted the same way (hook.go).
//   - A goroutine that waits for nothing but its clock enforces leases
//     (fence.go): when its lease expires, an exclusive instance is killed whatever
//     holds up the loop. It starts again only after the lease is renewed
//     (lease.go).
//   - Every event is journalled before and after each fork, so that the
//     successor of a killed watchdog adopts what is running, and no process ends
//     (journal.go, adopt.go).
package watchdog
