# SPDX-License-Identifier: Apache-2.0
"""The shuffling of package shard, written a second time from its description.

    python3 order_golden.py > order_golden.json

prints what the Go tests compare with. Only the standard library is needed.
"""

import json

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


class Rand:
    def __init__(self, seed, *path):
        key = mix((seed + GOLDEN) & MASK)
        for part in path:
            key = mix((3 * key + mix((part + GOLDEN) & MASK) + GOLDEN) & MASK)
        self.key, self.count = key, 0

    def uint64(self):
        """The count-th number is a hash of the key and the count alone."""
        self.count += 1
        return mix((self.key + self.count * GOLDEN) & MASK)

    def below(self, n):
        """Lemire's method: redraw while the low half lies in the surplus."""
        while True:
            m = self.uint64() * n
            if (m & MASK) >= (1 << 64) % n:
                return m >> 64

    def perm(self, n):
        p = list(range(n))
        for i in range(n - 1, 0, -1):
            j = self.below(i + 1)
            p[i], p[j] = p[j], p[i]
        return p


def pieces(records, shard_records, replicas, replica):
    start, end = records * replica // replicas, records * (replica + 1) // replicas
    out = []
    for r in range(start, end):
        shard, at = divmod(r, shard_records)
        if out and out[-1][0] == shard:
            out[-1][2] = at + 1
        else:
            out.append([shard, at, at + 1])
    return out


def epoch(ps, shard_records, seed, number, replica):
    """The records of the global order in the order in which an epoch sees them."""
    seen = []
    for k in Rand(seed, number, replica, 1).perm(len(ps)):
        shard, start, end = ps[k]
        for i in Rand(seed, number, replica, k, 2).perm(end - start):
            seen.append(shard * shard_records + start + i)
    return seen


def main():
    rand = Rand(42)
    keyed = Rand(42, 1, 2, 3)
    ps = pieces(50, 8, 3, 1)
    print(json.dumps({
        # The first numbers of SplitMix64 seeded with 0, from its author's reference.
        "mix": [mix(GOLDEN), mix(2 * GOLDEN & MASK), mix(3 * GOLDEN & MASK)],
        "numbers": [rand.uint64() for _ in range(4)],
        "keyed": [keyed.uint64() for _ in range(4)],
        "below": [Rand(7, i).below((1 << 63) + 12345) for i in range(16)],
        "perm": Rand(1, 2).perm(20),
        "pieces": ps,
        "epochs": [epoch(ps, 8, 9, e, 1) for e in range(3)],
    }, indent=1))


if __name__ == "__main__":
    main()
