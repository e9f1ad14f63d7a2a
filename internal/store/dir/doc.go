// SPDX-License-Identifier: Apache-2.0

// Package dir keeps a store in a folder, for programs on one machine or on one
// shared file system. It hides the file format, the names of files and the
// order of system calls that makes the promises of
// [disdel/internal/store.Store] true there.
//
//	<folder>/disdel-store           marker: this folder is a store; format version
//	<folder>/objects/jobs/7/x@      object jobs/7/x
//	<folder>/status/jobs/7/x@       status jobs/7/x
//	<folder>/logs/jobs/7@/00000001  first entry of log jobs/7
//	<folder>/tmp/<random>/          files that one client is writing, and its lock
//
// A file or log ends in "@", a folder of segments does not, and "@" cannot occur
// in a key: so a/b and a/b/c live side by side. A segment longer than a file
// name may be is cut into folders whose names end in "+".
//
// Every file (marker apart) has one format. Integers are little-endian, crc is
// the CRC-32C of all bytes of the file before and including this frame, without
// the crc fields themselves:
//
//	header   "disdel" kind version crc32c(name) crc
//	frame    length(4) crc(4) data      64 KiB each, the last may be shorter
//	trailer  0(4)      crc(4) total(8)
//
// The name in the header is the key (for entries, log and number): a file that
// was moved to another key is noticed. Content determines the bytes of the file,
// all of them.
//
// Invariants:
//
//  1. A file under objects, status or logs is complete before it gets its name
//     there, by link(2) or rename(2), and is never written afterwards.
//  2. No byte of a frame is handed out before its checksum matched.
//  3. A read or a write holds one frame in memory, however large the object.
//  4. Only temporary files and empty folders are swept, and of the files only
//     those whose client is dead: its lock is free, and it ran on this boot of
//     this machine or nothing has happened to them for long.
//  5. Only regular files are opened. A folder in which another user could plant
//     something is no store.
//
// All methods may be called from any goroutine, and any number of processes may
// have the folder open. Opening a store that exists writes nothing, so that one
// on a read-only file system can be read.
package dir
