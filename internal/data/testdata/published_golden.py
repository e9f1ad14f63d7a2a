# SPDX-License-Identifier: Apache-2.0
"""What the published data sets must be, computed from their files without disdel.

    python3 published_golden.py FOLDER > published_golden.json

FOLDER has a folder of each name with the published files, the CIFAR archives
extracted. The hold-out, the global order and the digest are written a second
time from their descriptions; order_golden.py has the generator. CIFAR-100's
digest depends on the order of its records, which not all copies share, so it is
described by what does not: counts and sums.
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


def describe(classes, records):
    counts, sums = [0] * classes, [0] * classes
    for pixels, label in records:
        counts[label] += 1
        sums[label] += sum(pixels)
    return {"records": len(records), "labels": counts, "pixel_sums": sums}


def idx_images(path):
    raw = gzip.decompress(path.read_bytes())
    magic, n, h, w = struct.unpack(">4I", raw[:16])
    assert magic == 0x803 and len(raw) == 16 + n * h * w
    return [raw[16 + i * h * w:16 + (i + 1) * h * w] for i in range(n)]


def idx_labels(path):
    raw = gzip.decompress(path.read_bytes())
    magic, n = struct.unpack(">2I", raw[:8])
    assert magic == 0x801 and len(raw) == 8 + n
    return raw[8:]


def idx(folder):
    out = []
    for part in ("train", "t10k"):
        images = idx_images(folder / f"{part}-images-idx3-ubyte.gz")
        labels = idx_labels(folder / f"{part}-labels-idx1-ubyte.gz")
        out.append(list(zip(images, labels, strict=True)))
    return (28, 28, 1, 10, 1 / 255), *out


def cifar(folder, label_bytes, classes, train, test):
    def read(names):
        size, records = label_bytes + 3072, []
        for name in names:
            raw = (folder / name).read_bytes()
            assert len(raw) % size == 0
            for at in range(0, len(raw), size):
                planes = raw[at + label_bytes:at + size]
                pixels = bytearray(3072)
                for c in range(3):
                    pixels[c::3] = planes[1024 * c:1024 * (c + 1)]
                records.append((bytes(pixels), raw[at + label_bytes - 1]))
        return records
    return (32, 32, 3, classes, 1 / 255), read(train), read(test)


def alpha(path):
    """The first variable is the cell array; its cells have one fixed size."""
    raw = path.read_bytes()
    kind, size = struct.unpack("<2I", raw[128:136])
    assert kind == 14
    cells = raw[136 + size - 376 * 36 * 39:136 + size]
    records = []
    for label in range(36):
        for example in range(39):
            cell = cells[376 * (label + 36 * example):][:376]
            columns = cell[56:]
            assert cell[:8] == struct.pack("<2I", 14, 368) and cell[48:56] == struct.pack("<2I", 2, 320)
            records.append((bytes(columns[y + 20 * x] for y in range(20) for x in range(16)), label))
    held = set()
    for label in range(36):
        own = [i for i, (_, of) in enumerate(records) if of == label]
        count = int(len(own) * PERCENT / 100 + 0.5)
        held.update(own[k] for k in Rand(HOLD_OUT_SEED, label).perm(len(own))[:count])
    return ((20, 16, 1, 36, 1.0), [r for i, r in enumerate(records) if i not in held],
            [r for i, r in enumerate(records) if i in held])


def digest(shape, train, test):
    h, w, c, classes, scale = shape
    out = hashlib.sha256(b"disdel data set 1\n" + struct.pack("<4If", h, w, c, classes, scale))
    order = Rand(CUT_SEED).perm(len(train))
    for split in ([train[i] for i in order], test):
        out.update(struct.pack("<Q", len(split)))
        out.update(b"".join(struct.pack("<H", label) for _, label in split))
        for pixels, _ in split:
            out.update(pixels)
    return out.hexdigest()


def main():
    root = pathlib.Path(sys.argv[1])
    ten = root / "cifar10" / "cifar-10-batches-bin"
    hundred = root / "cifar100" / "cifar-100-binary"
    sets = {
        "mnist": lambda: idx(root / "mnist"),
        "fashion_mnist": lambda: idx(root / "fashion_mnist"),
        "cifar10": lambda: cifar(ten, 1, 10, [f"data_batch_{i}.bin" for i in range(1, 6)], ["test_batch.bin"]),
        "cifar100": lambda: cifar(hundred, 2, 100, ["train.bin"], ["test.bin"]),
        "binary_alpha_digits": lambda: alpha(root / "binary_alpha_digits" / "binaryalphadigs.mat"),
    }
    out = {}
    for name, read in sets.items():
        shape, train, test = read()
        out[name] = {"train": describe(shape[3], train), "test": describe(shape[3], test)}
        if name != "cifar100":
            out[name]["digest"] = digest(shape, train, test)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
