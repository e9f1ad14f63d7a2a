// SPDX-License-Identifier: Apache-2.0

package redis

import (
	goredis "github.com/redis/go-redis/v9"
)

// What scripts answer besides a count. Every script first compares the marker
// with that of the store that was opened.
const (
	answerGone       = -1 // the marker is another one
	answerIncomplete = -2 // parts of the upload are missing
)

// KEYS: marker, object, upload, index.
// ARGV: marker, manifest, number of chunks, key, milliseconds to live or 0.
var commitScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('UNLINK', KEYS[3])
  return 0
end
if redis.call('HLEN', KEYS[3]) ~= tonumber(ARGV[3]) then return -2 end
redis.call('HSET', KEYS[3], 'm', ARGV[2])
redis.call('ZADD', KEYS[4], 0, ARGV[4])
redis.call('RENAME', KEYS[3], KEYS[2])
if ARGV[5] == '0' then
  redis.call('PERSIST', KEYS[2])
else
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
return 1`)

// KEYS: marker, index, objects. ARGV: marker, keys.
var deleteScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
for i = 3, #KEYS do
  redis.call('UNLINK', KEYS[i])
  redis.call('ZREM', KEYS[2], ARGV[i-1])
end
return 1`)

// KEYS: marker, index. ARGV: marker, first and last name, most names, prefix of
// their keys, "" or "size" or "renew", milliseconds to live.
// The answer is how many names were looked at, the last of them, and those whose
// keys exist, each with its manifest if wanted. What cannot be removed (the
// server may be a replica) is passed over all the same.
var listScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
local names = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
local out = {#names, names[#names] or ''}
for _, name in ipairs(names) do
  local key = ARGV[5] .. name
  if redis.call('EXISTS', key) == 0 then
    redis.pcall('ZREM', KEYS[2], name)
  else
    out[#out+1] = name
    if ARGV[6] == 'size' then
      local manifest = redis.pcall('HGET', key, 'm')
      out[#out+1] = type(manifest) == 'string' and manifest or ''
    elseif ARGV[6] == 'renew' and redis.call('PTTL', key) > 0 then
      redis.call('PEXPIRE', key, ARGV[7])
    end
  end
end
return out`)

// KEYS: marker, status. ARGV: marker, value, milliseconds to live or 0.
var statusScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if ARGV[3] == '0' then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
return 1`)

// KEYS: marker, log, index. ARGV: marker, sequence, entry, name.
// That the sequence is the right one says that the head is: the caller has read
// the entry there, and entries never change.
var appendScript = goredis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('LLEN', KEYS[2]) ~= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[3], 0, ARGV[4])
redis.call('RPUSH', KEYS[2], ARGV[3])
return 1`)
