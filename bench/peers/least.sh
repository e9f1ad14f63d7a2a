#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Finds the smallest kernel limit of memory, in multiples of 16 MB, under which a
# command ends well, each time from a cold cache of files. Root alone can run it.
#
#   bench/peers/least.sh ~/peers/jax/bin/python bench/peers/peers.py run jax --spec @model.json --steps 20 --chunk 10
set -eu
[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  group=/sys/fs/cgroup/disdel-least-$$ limit=memory.max
else
  group=/sys/fs/cgroup/memory/disdel-least-$$ limit=memory.limit_in_bytes
fi
trap 'rmdir "$group" 2>/dev/null || true' EXIT
finishes() {
  bytes=$(($1 << 20))
  shift
  mkdir "$group"
  echo $bytes > "$group/$limit"
  # Without swap; kernels that do not count it lack the files.
  [ ! -f "$group/memory.swap.max" ] || echo 0 > "$group/memory.swap.max"
  [ ! -f "$group/memory.memsw.limit_in_bytes" ] || echo $bytes > "$group/memory.memsw.limit_in_bytes"
  sync; echo 3 > /proc/sys/vm/drop_caches
  ok=0
  GROUP=$group timeout 300 sh -c 'echo $$ > "$GROUP/cgroup.procs" && exec "$@"' sh "$@" > /dev/null 2>&1 || ok=1
  rmdir "$group"
  return $ok
}
low=1 high=128 least=none
while [ $low -le $high ]; do
  middle=$(((low + high) / 2)) mb=$((16 * ((low + high) / 2)))
  if finishes $mb "$@"; then least="$mb MB" high=$((middle - 1)); else low=$((middle + 1)); fi
done
echo "least limit: $least"
