#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden files next to this script: python3 golden.py

The reference is PyTorch's autograd in float64, on the same pixels and initial
weights, with Keras's Adam written out (PyTorch's own places epsilon elsewhere).
Needs torch and numpy. Per model one file, little-endian, one part after the
other: pixels uint8 [batch, 8, 8, 1], labels uint8 [batch], initial weights
float32, gradients of the first step float32, losses of ten steps float64. Weights
and gradients are flat vectors in the engine's order and layout (Keras's).
"""
import pathlib

import numpy
import torch

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


for seed, (name, model) in enumerate({"cnn": cnn, "mlp": mlp}.items()):
    random = numpy.random.RandomState(seed)
    pixels = random.randint(0, 256, (BATCH, SIDE, SIDE, 1)).astype(numpy.uint8)
    labels = random.randint(0, CLASSES, BATCH).astype(numpy.uint8)
    start = [random.uniform(-0.2, 0.2, s).astype("<f4") for s in SHAPES[name]]
    p = [torch.tensor(w.astype(numpy.float64), requires_grad=True) for w in start]
    x = torch.tensor(pixels.astype(numpy.float64) * SCALE)
    y = torch.tensor(labels.astype(numpy.int64))
    m, v = [torch.zeros_like(w) for w in p], [torch.zeros_like(w) for w in p]
    losses, gradients = [], None
    for t in range(1, STEPS + 1):
        loss = torch.nn.functional.cross_entropy(model(p, x), y)
        g = torch.autograd.grad(loss, p)
        losses.append(loss.item())
        gradients = flat(g) if t == 1 else gradients
        alpha = 0.001 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
        with torch.no_grad():
            for i, w in enumerate(p):
                m[i] += (g[i] - m[i]) * (1 - 0.9)
                v[i] += (g[i] ** 2 - v[i]) * (1 - 0.999)
                w -= alpha * m[i] / (v[i].sqrt() + 1e-7)
    with open(pathlib.Path(__file__).parent / f"golden-{name}.bin", "wb") as f:
        f.write(pixels.tobytes() + labels.tobytes())
        f.write(b"".join(w.tobytes() for w in start) + gradients.tobytes())
        f.write(numpy.array(losses, "<f8").tobytes())
    print(name, torch.__version__, [round(v, 6) for v in losses])
