# SPDX-License-Identifier: Apache-2.0
"""What the data set digits must be, computed from its file without disdel.

    python3 digits_golden.py > digits_golden.json

The hold-out, the global order and the digest are written a second time from
their descriptions; order_golden.py has the generator.
"""

import gzip
import hashlib
import json
import pathlib
import struct
import sys

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "shard" / "testdata"))
from order_golden import Rand  # noqa: E402

HOLD_OUT_SEED, CUT_SEED, PERCENT = 20200501, 20200502, 20


def describe(records):
    counts, sums = [0] * 10, [0] * 10
    for pixels, label in records:
        counts[label] += 1
        sums[label] += sum(pixels)
    return {"records": len(records), "labels": counts, "pixel_sums": sums}


def main():
    text = gzip.decompress((HERE.parent / "digits" / "digits.csv.gz").read_bytes())
    rows = [[int(v) for v in line.split(",")] for line in text.decode("ascii").splitlines()]
    records = [(row[:64], row[64]) for row in rows]

    held = set()
    for digit in range(10):
        own = [i for i, (_, label) in enumerate(records) if label == digit]
        count = int(len(own) * PERCENT / 100 + 0.5)
        held.update(own[k] for k in Rand(HOLD_OUT_SEED, digit).perm(len(own))[:count])
    train = [r for i, r in enumerate(records) if i not in held]
    test = [r for i, r in enumerate(records) if i in held]

    order = Rand(CUT_SEED).perm(len(train))
    digest = hashlib.sha256(b"disdel data set 1\n" + struct.pack("<4If", 8, 8, 1, 10, 1 / 16))
    for split in ([train[i] for i in order], test):
        digest.update(struct.pack("<Q", len(split)))
        digest.update(b"".join(struct.pack("<H", label) for _, label in split))
        digest.update(b"".join(bytes(pixels) for pixels, _ in split))

    print(json.dumps({
        "all": describe(records),
        "train": describe(train),
        "test": describe(test),
        "order": order[:20],
        "digest": digest.hexdigest(),
    }, indent=1))


if __name__ == "__main__":
    main()
