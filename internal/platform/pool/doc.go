// SPDX-License-Identifier: Apache-2.0

// Package pool is the embedded serverless platform: a small, real one for one
// machine. It follows OpenWhisk's invoker: containers that are free, busy or
// being prewarmed, memory limits counted against the pool's memory, a queue
// when the pool is full, warm reuse, idle removal, and hard limits on the
// memory and the time of every call. It hides when a container is started,
// reused, paused or removed; how one is isolated is hidden by a [Driver].
//
// Words: a container is Ready when it is initialised and idle; a call is cold
// when its container was started for it; the books are the sum of the memory
// limits of all containers that exist, those being started or removed included.
//
// Three layers, each testable without the one above:
//
//   - container.go: the life of one container, a pure function of its state, a
//     message and the time.
//   - machine.go: the pool, a pure machine too: no goroutine, no I/O, no clock.
//   - run.go: one goroutine that feeds messages in and has the commands that
//     come out executed by the driver.
//
// Invariants:
//
//  1. The books never exceed Config.PoolMemory. Memory is booked before a
//     container starts or grows and released after the driver has confirmed
//     that it is gone.
//  2. Every accepted call gets exactly one outcome.
//  3. A container serves one call at a time, and only calls of the action and
//     the version of it that it was initialised for.
//  4. Calls get containers in the order in which they were accepted. A large
//     call at the head of the queue holds back small ones behind it, as in
//     OpenWhisk: otherwise it might wait for ever.
//  5. After Close nothing that the pool started exists.
//
// All methods of [Pool] may be called from any goroutine.
package pool
