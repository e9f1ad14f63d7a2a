// SPDX-License-Identifier: Apache-2.0

// Package docker is the pool's driver that makes containers with the Docker
// Engine on this machine. It hides the engine's API, how a container is reached,
// measured and ended, and where images come from.
//
// A container serves the action interface on port 8080 of its own address in the
// engine's bridge network, one connection a request. It has its memory limit
// without swap, processor shares by its memory, at most 1024 processes and open
// files, no capabilities, a read-only root with a small /tmp in memory, and no
// way to get privileges.
//
// Words: a leftover is a container whose owner, a process with a driver, has
// ended without removing it; a reaper is a process that removes the containers of
// a driver whose process was killed.
//
// Invariants:
//
//  1. Everything that is removed has this driver's label: a container of its own,
//     or one whose owner is known to be dead. Nothing else is touched.
//  2. Out of memory is what the engine's own state says.
//  3. Every request to the engine has a time limit.
//  4. Init-only parameters go over the connection to the container alone: not
//     into its environment, its labels or its command.
package docker
