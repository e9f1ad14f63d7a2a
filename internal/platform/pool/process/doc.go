// SPDX-License-Identifier: Apache-2.0

// Package process is the driver that makes each container a child process. It
// hides how the kernel is made to enforce memory limits, how a process is
// reached, measured, and ended without a trace.
//
// The child serves the action interface over an inherited, connected unix
// socket, so that nobody else can call it: its number is in the environment
// variable DISDEL_WORKER_FD (3). It is one HTTP/1.1 connection that is kept
// alive; when it ends, the child should end.
//
// Words: a group is a cgroup made for one container; the enforcement is what
// holds the memory limit, chosen once by [Open] by trying it for real.
//
// Invariants:
//
//  1. The child is in its group before its first page is charged.
//  2. A child never outlives its container, nor the driver's process, however
//     that ends; a group that a killed owner left is swept by the next [Open].
//  3. The child inherits no descriptor but its socket, /dev/null and the pipe
//     that captures its output, and no environment but Config.Env.
//  4. A process is killed only while it cannot have been reaped, so that a
//     number that the kernel has given to somebody else is never hit.
package process
