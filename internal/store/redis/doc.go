// SPDX-License-Identifier: Apache-2.0

// Package redis keeps a store on a Redis server (6.2 or newer, or Valkey), for
// workers on any machine that reaches it. It hides the client library, the keys,
// the format of values and the scripts that make the promises of
// [disdel/internal/store.Store] true there.
//
// All keys of a store start with "disdel:{name}:", where name is "main" unless
// the address says ?name=; the braces keep them in one slot of a cluster.
//
//	store        marker: this is a store; format version, random id
//	o:<key>      object: a hash with a manifest "m" and chunks "0", "1", ...
//	s:<key>      status: a string
//	l:<log>      log: a list of entries
//	io, il       sorted sets: the names of all objects, of all logs
//	u:<id>       an object that is being written, under a random id
//
// Values are framed. Integers are little-endian; crc is the CRC-32C of all else
// in the value and, ahead of it, of the key (for a chunk, of its number):
//
//	manifest  "disdel" 'o' version  total(8) chunk size(4) id(16) crc
//	chunk     data id(16) crc
//	status    "disdel" 's' version  crc data
//	entry     "disdel" 'l' version  crc hash(32) payload
//
// Invariants:
//
//  1. An object is written under a random id and gets its key by one script,
//     which looks that no other has the key and that no chunk is missing. It is
//     one Redis key, so it goes, expires and is renewed as a whole.
//  2. The script that creates, removes or appends also changes the sorted set.
//     Names whose key has expired are passed over, and removed when met.
//  3. No byte of a chunk is handed out before its checksum matched. The id in
//     each chunk tells an object that was replaced meanwhile from a damaged one.
//  4. A read or a write holds one chunk in memory, however large the object.
//  5. Nothing is written into a store whose marker is not the one that was
//     opened, and such a store is unavailable, not empty: its server was emptied
//     or came back without its data.
//
// What expires: objects under "jobs/" after [disdel/internal/store.ScratchLife]
// unless renewed, statuses under "jobs/" that long after they were last set, and
// uploads that were abandoned after an hour. Models, data sets, logs and other
// statuses stay.
//
// What survives is the server's to decide. With "appendonly yes" and
// "appendfsync always", what a call returned survives a power failure, as the
// contract wants of Append and Flush; with "everysec", the default, a power
// failure takes the last second, a crash of the server alone nothing. Without an
// append-only file a restart takes all since the last snapshot: run that way
// only what can be run again. A server that evicts keys without a time limit
// (maxmemory-policy allkeys-...) is refused.
//
// A user of the server needs, with the store's name in place of main:
//
//	ACL SETUSER disdel on >PASSWORD resetkeys ~disdel:{main}:* resetchannels
//	  -@all +info +select +multi +exec +eval +evalsha
//	  +get +set +exists +unlink +rename +pttl +pexpire +persist
//	  +hget +hset +hlen +hstrlen +zadd +zrem +zrangebylex
//	  +rpush +llen +lindex +lrange
//
// All methods may be called from any goroutine.
package redis
