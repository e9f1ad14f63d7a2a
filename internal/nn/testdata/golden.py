#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden files next to this script: python3 golden.py

The reference is PyTorch's autograd in float64, on the same pixels and initial
weights, with Keras's optimizers written out (PyTorch's own place epsilon and the
learning rate elsewhere). Needs torch and numpy.

golden-cnn.bin, golden-mlp.bin: little-endian, one part after the other: pixels
uint8 [batch, 8, 8, 1], labels uint8 [batch], initial weights float32, gradients
of the first step float32, losses of ten Adam steps float64. Weights and gradients
are flat vectors in the engine's order and layout (Keras's).

golden-optimizers.json: the losses of ten steps of mlp from the same start with
the other optimizers.

golden-training.json: the same start with what a job can add: a schedule with warm-up,
L2, a bound of the gradient's length, smoothed labels, augmented records. A loss is
reported without the penalty.

golden-cnn-deep.json, golden-lenet5.json, golden-resnet20.json: for models that are
too large to be stored: initial weights come from the engine's generator, written out
here, and so do dropout's masks. Of the gradients of the first step every tensor's
norm and eight sums of its values, each with signs of its own, which miss no value;
losses of ten steps; after them the moving statistics, and the logits that follow from
these.
"""
import json
import math
import pathlib

import numpy
import torch

HERE = pathlib.Path(__file__).parent
BATCH, SIDE, CLASSES, STEPS = 16, 8, 10, 10
SCALE = float(numpy.float32(1 / 255))
SHAPES = {
    "cnn": [(3, 3, 1, 32), (32,), (288, 64), (64,), (64, CLASSES), (CLASSES,)],
    "mlp": [(64, 128), (128,), (128, 64), (64,), (64, CLASSES), (CLASSES,)],
}


def cnn(p, x):
    x = torch.nn.functional.conv2d(x.permute(0, 3, 1, 2), p[0].permute(3, 2, 0, 1), p[1])
    x = torch.nn.functional.max_pool2d(torch.relu(x), 2)
    x = x.permute(0, 2, 3, 1).reshape(BATCH, -1)  # flattened as Keras does
    return torch.relu(x @ p[2] + p[3]) @ p[4] + p[5]


def mlp(p, x):
    x = torch.relu(x.reshape(BATCH, -1) @ p[0] + p[1])
    return torch.relu(x @ p[2] + p[3]) @ p[4] + p[5]


def flat(tensors):
    return numpy.concatenate([t.detach().numpy().ravel() for t in tensors]).astype("<f4")


def adam(p, g, m, v, t, decay=0.0):
    alpha = 0.001 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
    for i, w in enumerate(p):
        w -= w * decay * 0.001
        m[i] += (g[i] - m[i]) * (1 - 0.9)
        v[i] += (g[i] ** 2 - v[i]) * (1 - 0.999)
        w -= alpha * m[i] / (v[i].sqrt() + 1e-7)


def adamw(p, g, m, v, t):
    adam(p, g, m, v, t, decay=0.004)


def sgd(p, g, m, v, t):
    for i, w in enumerate(p):
        m[i] = 0.9 * m[i] - 0.01 * g[i]
        w += m[i]


def train(p, loss_of, optimizer):
    """Returns the losses of all steps and the gradients of the first."""
    m, v = [torch.zeros_like(w) for w in p], [torch.zeros_like(w) for w in p]
    losses, gradients = [], None
    for t in range(1, STEPS + 1):
        loss = loss_of(t)
        g = torch.autograd.grad(loss, p)
        losses.append(loss.item())
        gradients = g if t == 1 else gradients
        with torch.no_grad():
            optimizer(p, g, m, v, t)
    return losses, gradients


def wide(arrays):
    return [torch.tensor(w.astype(numpy.float64), requires_grad=True) for w in arrays]


def small_models():
    for seed, (name, model) in enumerate({"cnn": cnn, "mlp": mlp}.items()):
        random = numpy.random.RandomState(seed)
        pixels = random.randint(0, 256, (BATCH, SIDE, SIDE, 1)).astype(numpy.uint8)
        labels = random.randint(0, CLASSES, BATCH).astype(numpy.uint8)
        start = [random.uniform(-0.2, 0.2, s).astype("<f4") for s in SHAPES[name]]
        x = torch.tensor(pixels.astype(numpy.float64) * SCALE)
        y = torch.tensor(labels.astype(numpy.int64))

        def run(optimizer):
            p = wide(start)
            return train(p, lambda t: torch.nn.functional.cross_entropy(model(p, x), y), optimizer)

        def run_with(optimizer, records, smoothing=0.0):
            p = wide(start)
            cost = lambda t: torch.nn.functional.cross_entropy(model(p, records(t)), y, label_smoothing=smoothing)
            return train(p, cost, optimizer)[0]

        losses, gradients = run(adam)
        with open(HERE / f"golden-{name}.bin", "wb") as f:
            f.write(pixels.tobytes() + labels.tobytes())
            f.write(b"".join(w.tobytes() for w in start) + flat(gradients).tobytes())
            f.write(numpy.array(losses, "<f8").tobytes())
        print(name, torch.__version__, [round(v, 6) for v in losses])
        if name == "cnn":
            training = {n: extras(run_with, pixels, y) for n, extras in EXTRAS.items()}
            (HERE / "golden-training.json").write_text(json.dumps(training, indent=1) + "\n")
            print({n: [round(v, 6) for v in losses] for n, losses in training.items()})
        if name == "mlp":
            others = {o.__name__: run(o)[0] for o in (sgd, adamw)}
            (HERE / "golden-optimizers.json").write_text(json.dumps(others, indent=1) + "\n")


# The engine's counter-based generator: SplitMix64.
MASK, GOLDEN = (1 << 64) - 1, 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def stream(key, n):
    return [mix((key + (i + 1) * GOLDEN) & MASK) for i in range(n)]


def glorot(index, seed, shape):
    if len(shape) == 1:
        return numpy.zeros(shape, numpy.float32)
    n = int(numpy.prod(shape))
    fan = n // (shape[-2] * shape[-1]) * (shape[-2] + shape[-1])
    u = [(2 * (r >> 40) + 1) * 2.0**-24 - 1 for r in stream(mix(seed ^ mix(index + 1)), n)]
    return (numpy.array(u) * (6 / fan) ** 0.5).astype(numpy.float32).reshape(shape)


def dropout(seed, replica, step, layer, rate, shape):
    key = int.from_bytes(b"dropout", "big")
    for word in (seed, replica, step, layer):
        key = mix((3 * key + mix((word + GOLDEN) & MASK) + GOLDEN) & MASK)
    drop = numpy.array([r >> 40 for r in stream(key, int(numpy.prod(shape)))]) < int(rate * 2**24 + 0.5)
    return torch.tensor(numpy.where(drop, 0, 1 / (1 - rate)).reshape(shape))


def signed_sums(index, g):
    """Eight sums of a tensor's values. Bit k of the generator is value i's sign in
    the k-th: so the differences of two tensors' sums are as large as their distance."""
    bits = numpy.array([r & 255 for r in stream(1000 + index, g.numel())])
    values = g.detach().numpy().ravel()
    return [float(numpy.where(bits >> k & 1, values, -values).sum()) for k in range(8)]


def tuned(rate_of, l2, clip):
    """SGD with momentum 0.9 at a rate for each step, a penalty of the weights and a
    bound of the gradient's length."""

    def step(p, g, m, v, t):
        g = [d + l2 * w if w.dim() > 1 else d for d, w in zip(g, p)]
        length = torch.cat([d.reshape(-1) for d in g]).norm()
        for i, w in enumerate(p):
            m[i] = 0.9 * m[i] - rate_of(t) * g[i] * min(1, clip / length)
            w += m[i]

    return step


def cosine(run, pixels, y):
    """Two steps of warm-up, then half a turn over the other eight."""
    rate = lambda t: 0.05 * (t / 2 if t < 2 else (1 + math.cos(math.pi * max(0, t - 3) / 8)) / 2)
    x = torch.tensor(pixels.astype(numpy.float64) * SCALE)
    return run(tuned(rate, 0.01, 0.5), lambda t: x, smoothing=0.1)


def steps(run, pixels, y):
    """A tenth from the sixth step on, a hundredth from the ninth; with records that are
    flipped and shifted by up to two pixels."""
    rate = lambda t: 0.05 * (1 if t <= 5 else 0.1 if t <= 8 else 0.01)

    def records(t):
        key = int.from_bytes(b"augment", "big")
        for word in (7, 3, t, 0):  # seed, replica, step
            key = mix((3 * key + mix((word + GOLDEN) & MASK) + GOLDEN) & MASK)
        changed = []
        for image, chance in zip(pixels, stream(key, BATCH)):
            if chance >> 63:
                image = image[:, ::-1]
            down, right = ((chance >> s & 0xFFFFFF) * 5 >> 24 for s in (0, 24))  # 0 to 4
            padded = numpy.pad(image, ((2, 2), (2, 2), (0, 0)))
            changed.append(padded[4 - down : 12 - down, 4 - right : 12 - right])
        return torch.tensor(numpy.array(changed).astype(numpy.float64) * SCALE)

    return run(tuned(rate, 0.001, 1e6), records)


EXTRAS = {"cosine": cosine, "step": steps}


class Deep:
    """A model whose weights the generator makes. shapes are those of its tensors, in
    the engine's order; norms are the indices of gammas, each with beta behind it."""

    def __init__(self, name, side, shapes, norms):
        self.name, self.side, self.seed, self.replica, self.records = name, side, 5, 3, 21
        start = [glorot(i, self.seed, s) for i, s in enumerate(shapes)]
        for gamma in norms:
            start[gamma] += 1
        self.p = wide(start)
        n = BATCH * side * side
        pixels = numpy.array([r >> 56 for r in stream(self.records, n)], numpy.uint8)
        self.x = torch.tensor(pixels.reshape(BATCH, side, side, 1).astype(numpy.float64) * SCALE)
        self.y = torch.tensor([r % CLASSES for r in stream((self.records + (1 << 40) * GOLDEN) & MASK, BATCH)])
        sizes = [shapes[gamma][0] for gamma in norms]
        self.moving = [(torch.zeros(f, dtype=torch.float64), torch.ones(f, dtype=torch.float64)) for f in sizes]
        self.norms = {gamma: i for i, gamma in enumerate(norms)}

    def conv(self, v, i, stride=1, padding="valid", bias=False):
        """Keras's: of an odd padding the extra row is below."""
        w = self.p[i].permute(3, 2, 0, 1)
        if padding == "same":
            pad = []
            for n in (v.shape[3], v.shape[2]):
                total = max(0, (-(-n // stride) - 1) * stride + w.shape[2] - n)
                pad += [total // 2, total - total // 2]
            v = torch.nn.functional.pad(v, pad)
        return torch.nn.functional.conv2d(v, w, self.p[i + 1] if bias else None, stride=stride)

    def norm(self, v, i, step):
        mean, variance = self.moving[self.norms[i]]
        if step:
            mean, variance = v.mean((0, 2, 3)), v.var((0, 2, 3), unbiased=False)
            # Keras's moving averages, corrected for their start.
            keep = 0.99 * (1 - 0.99 ** (step - 1)) / (1 - 0.99**step)
            with torch.no_grad():
                old = self.moving[self.norms[i]]
                self.moving[self.norms[i]] = (old[0] * keep + mean * (1 - keep), old[1] * keep + variance * (1 - keep))
        shape = (1, -1, 1, 1)
        v = (v - mean.view(shape)) / (variance.view(shape) + 1e-3).sqrt()
        return v * self.p[i].view(shape) + self.p[i + 1].view(shape)

    def dense(self, v, i):
        return v @ self.p[i] + self.p[i + 1]

    def write(self, forward):
        """forward returns the logits as training sees them, or at step 0 as they
        are."""
        losses, gradients = train(self.p, lambda t: torch.nn.functional.cross_entropy(forward(t), self.y), adam)
        golden = {
            "seed": self.seed,
            "replica": self.replica,
            "records": self.records,
            "losses": losses,
            "norms": [g.norm().item() for g in gradients],
            "sums": [signed_sums(i, g) for i, g in enumerate(gradients)],
            "moving": [v for pair in self.moving for part in pair for v in part.tolist()],
            "logits": forward(0).reshape(-1).tolist(),
        }
        golden = json.loads(json.dumps(golden), parse_float=lambda v: float(f"{float(v):.9g}"))
        (HERE / f"golden-{self.name}.json").write_text(json.dumps(golden) + "\n")
        print(self.name, [round(v, 6) for v in losses])


def cnn_deep():
    shapes, channels, layer = [], 1, 17  # the layer is dropout's place in the list
    for filters in (32, 32, 64, 64):
        shapes += [(3, 3, channels, filters), (filters,), (filters,)]
        channels = filters
    m = Deep("cnn-deep", 4, shapes + [(64, 128), (128,), (128, CLASSES), (CLASSES,)], [1, 4, 7, 10])

    def forward(step):
        v = m.x.permute(0, 3, 1, 2)
        for i in range(4):
            v = torch.relu(m.norm(m.conv(v, 3 * i, padding="same"), 3 * i + 1, step))
            if i % 2:
                v = torch.nn.functional.max_pool2d(v, 2)
        v = torch.relu(m.dense(v.permute(0, 2, 3, 1).reshape(BATCH, -1), 12))
        if step:
            v = v * dropout(m.seed, m.replica, step, layer, 0.3, v.shape)
        return m.dense(v, 14)

    m.write(forward)


def lenet5():
    shapes = [(5, 5, 1, 6), (6,), (5, 5, 6, 16), (16,), (64, 120), (120,), (120, 84), (84,), (84, CLASSES), (CLASSES,)]
    m = Deep("lenet5", 16, shapes, [])

    def forward(_):
        v = m.x.permute(0, 3, 1, 2)
        v = torch.nn.functional.max_pool2d(torch.relu(m.conv(v, 0, padding="same", bias=True)), 2)
        v = torch.nn.functional.max_pool2d(torch.relu(m.conv(v, 2, bias=True)), 2)
        v = v.permute(0, 2, 3, 1).reshape(BATCH, -1)
        return m.dense(torch.relu(m.dense(torch.relu(m.dense(v, 4)), 6)), 8)

    m.write(forward)


def resnet20():
    shapes, norms, channels = [], [], 1
    plan = [16] + [f for f in (16, 32, 64) for _ in range(6)]
    for filters in plan:
        norms.append(len(shapes) + 1)
        shapes += [(3, 3, channels, filters), (filters,), (filters,)]
        channels = filters
    m = Deep("resnet20", 8, shapes + [(64, CLASSES), (CLASSES,)], norms)

    def conv_norm(v, i, step, stride=1):
        return m.norm(m.conv(v, 3 * i, stride, "same"), 3 * i + 1, step)

    def forward(step):
        v = torch.relu(conv_norm(m.x.permute(0, 3, 1, 2), 0, step))
        for block in range(9):
            stride = 2 if block in (3, 6) else 1
            u = torch.relu(conv_norm(v, 1 + 2 * block, step, stride))
            u = conv_norm(u, 2 + 2 * block, step)
            short = v[:, :, ::stride, ::stride]
            short = torch.nn.functional.pad(short, (0, 0, 0, 0, 0, u.shape[1] - short.shape[1]))
            v = torch.relu(u + short)
        return m.dense(v.mean((2, 3)), 57)

    m.write(forward)


small_models()
cnn_deep()
lenet5()
resnet20()
