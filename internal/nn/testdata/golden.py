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

golden-cnn-deep.json: for cnn-deep on 4x4x1, which is too large to be stored:
initial weights come from the engine's generator, written out here, and so do
dropout's masks. Of the gradients of the first step every tensor's norm and some
values; losses of ten steps; after them the moving statistics, and the logits
that follow from these.
"""
import json
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

        losses, gradients = run(adam)
        with open(HERE / f"golden-{name}.bin", "wb") as f:
            f.write(pixels.tobytes() + labels.tobytes())
            f.write(b"".join(w.tobytes() for w in start) + flat(gradients).tobytes())
            f.write(numpy.array(losses, "<f8").tobytes())
        print(name, torch.__version__, [round(v, 6) for v in losses])
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


def cnn_deep():
    seed, replica, side, layer = 5, 3, 4, 17  # the layer is dropout's place in the list
    shapes, channels = [], 1
    for filters in (32, 32, 64, 64):
        shapes += [(3, 3, channels, filters), (filters,), (filters,)]
        channels = filters
    shapes += [(64, 128), (128,), (128, CLASSES), (CLASSES,)]
    start = [glorot(i, seed, s) for i, s in enumerate(shapes)]
    for gamma in (1, 4, 7, 10):
        start[gamma] += 1
    p = wide(start)
    pixels = numpy.array([r >> 56 for r in stream(21, BATCH * side * side)], numpy.uint8)
    x = torch.tensor(pixels.reshape(BATCH, side, side, 1).astype(numpy.float64) * SCALE)
    y = torch.tensor([r % CLASSES for r in stream((21 + (1 << 40) * GOLDEN) & MASK, BATCH)])
    moving = [(torch.zeros(f, dtype=torch.float64), torch.ones(f, dtype=torch.float64)) for f in (32, 32, 64, 64)]

    def forward(step):
        """The logits as training sees them, or at step 0 as they are."""
        v = x.permute(0, 3, 1, 2)
        for i in range(4):
            w, gamma, beta = p[3 * i : 3 * i + 3]
            v = torch.nn.functional.conv2d(v, w.permute(3, 2, 0, 1), padding="same")
            mean, variance = moving[i]
            if step:
                mean, variance = v.mean((0, 2, 3)), v.var((0, 2, 3), unbiased=False)
                # Keras's moving averages, corrected for their start.
                keep = 0.99 * (1 - 0.99 ** (step - 1)) / (1 - 0.99**step)
                with torch.no_grad():
                    moving[i] = (moving[i][0] * keep + mean * (1 - keep), moving[i][1] * keep + variance * (1 - keep))
            shape = (1, -1, 1, 1)
            v = (v - mean.view(shape)) / (variance.view(shape) + 1e-3).sqrt()
            v = torch.relu(v * gamma.view(shape) + beta.view(shape))
            if i % 2:
                v = torch.nn.functional.max_pool2d(v, 2)
        v = torch.relu(v.permute(0, 2, 3, 1).reshape(BATCH, -1) @ p[12] + p[13])
        if step:
            v = v * dropout(seed, replica, step, layer, 0.3, v.shape)
        return v @ p[14] + p[15]

    losses, gradients = train(p, lambda t: torch.nn.functional.cross_entropy(forward(t), y), adam)
    golden = {
        "seed": seed,
        "replica": replica,
        "records": 21,
        "losses": losses,
        "norms": [g.norm().item() for g in gradients],
        "gradients": [g.reshape(-1)[:: max(1, g.numel() // 50)].tolist() for g in gradients],
        "moving": torch.cat([v for pair in moving for v in pair]).tolist(),
        "logits": forward(0).reshape(-1).tolist(),
    }
    (HERE / "golden-cnn-deep.json").write_text(json.dumps(golden) + "\n")
    print("cnn-deep", [round(v, 6) for v in losses])


small_models()
cnn_deep()
