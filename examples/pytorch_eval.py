#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Evaluates a disdel model with PyTorch.

    disdel models export digits digits.safetensors
    disdel datasets export digits digits.npz
    python3 pytorch_eval.py digits.safetensors digits.npz

Builds the model from the description in the file's metadata, loads the weights,
scales the test images as training did, and prints the accuracy. It needs torch and
numpy.
"""
import argparse
import json
import struct

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def read_safetensors(path):
    """Returns the metadata and the tensors, by name, of a safetensors file: eight
    bytes of header length, a JSON header, then the data."""
    with open(path, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length))
        data = f.read()
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, t in header.items():
        if t["dtype"] != "F32":
            raise ValueError(f"{path}: {name} has the type {t['dtype']}")
        begin, end = t["data_offsets"]
        values = np.frombuffer(data[begin:end], dtype="<f4").reshape(t["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return metadata, tensors


class Conv2D(nn.Module):
    """disdel's weights are [height, width, in, out], PyTorch's [out, in, height,
    width]. Padding "same" is Keras's: of an odd number of rows or columns the extra
    one is below or on the right."""

    def __init__(self, layer, weight, bias):
        super().__init__()
        self.weight = nn.Parameter(weight.permute(3, 2, 0, 1).contiguous())
        self.bias = None if bias is None else nn.Parameter(bias)
        self.stride = layer.get("stride", 1)
        self.same = layer.get("padding", "valid") == "same"

    def padding(self, size, kernel):
        total = max(0, (-(-size // self.stride) - 1) * self.stride + kernel - size)
        return total // 2, total - total // 2

    def forward(self, x):
        if self.same:
            rows = self.padding(x.shape[2], self.weight.shape[2])
            columns = self.padding(x.shape[3], self.weight.shape[3])
            x = F.pad(x, columns + rows)
        return F.conv2d(x, self.weight, self.bias, stride=self.stride)


class Flatten(nn.Module):
    """Rows, then columns, then channels: PyTorch has the channels first."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class GlobalAverage(nn.Module):
    def forward(self, x):
        return x.mean(dim=(2, 3))


class Add(nn.Module):
    """Adds an earlier output: every so many rows and columns of it, with zeros for the
    channels that it lacks."""

    def __init__(self, stride):
        super().__init__()
        self.stride = stride

    def forward(self, x, earlier):
        if earlier.dim() == 2:
            earlier = earlier[:, :, None, None]
        earlier = earlier[:, :, :: self.stride, :: self.stride]
        earlier = F.pad(earlier, (0, 0, 0, 0, 0, x.shape[1] - earlier.shape[1]))
        return x + earlier.reshape(x.shape)


class Layers(nn.Module):
    """Layers one after the other. sources says whose output an Add adds, as a place in
    the list; -1 is the input."""

    def __init__(self, modules, sources):
        super().__init__()
        self.layers, self.sources = nn.ModuleList(modules), sources

    def forward(self, x):
        outputs = {-1: x}
        for i, layer in enumerate(self.layers):
            x = layer(x, outputs[self.sources[i]]) if i in self.sources else layer(x)
            outputs[i] = x
        return x


class BatchNorm(nn.Module):
    """Keras's batch normalisation after training: epsilon is 0.001. It works on
    images, whose channels are PyTorch's second index, and on flat values."""

    def __init__(self, gamma, beta, mean, variance):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(gamma), nn.Parameter(beta)
        self.register_buffer("mean", mean)
        self.register_buffer("variance", variance)

    def forward(self, x):
        return F.batch_norm(x, self.mean, self.variance, self.gamma, self.beta, training=False, eps=1e-3)


def build(spec, tensors):
    """Returns the model that a description in disdel's form stands for."""
    counts, modules, flat = {}, [], False
    ends, sources = [-1], {}  # ends[i] is the module that makes layer i's input
    for i, layer in enumerate(spec["layers"]):
        kind = layer["kind"]
        # What is 1x1 is flat to disdel, but not to PyTorch.
        if kind == "dense" and not flat:
            modules.append(Flatten())
            flat = True
        elif kind in ("conv2d", "maxpool", "avgpool", "globalavgpool") and flat:
            modules.append(nn.Unflatten(1, (-1, 1, 1)))
            flat = False
        counts[kind] = counts.get(kind, 0) + 1
        name = f"{kind}_{counts[kind]}."
        if kind == "conv2d":
            module = Conv2D(layer, tensors[name + "weight"], tensors.get(name + "bias"))
        elif kind == "dense":
            weight = tensors[name + "weight"]
            module = nn.Linear(weight.shape[0], weight.shape[1], bias=name + "bias" in tensors)
            module.weight = nn.Parameter(weight.t().contiguous())
            if module.bias is not None:
                module.bias = nn.Parameter(tensors[name + "bias"])
        elif kind == "batchnorm":
            module = BatchNorm(*(tensors[name + t] for t in ("gamma", "beta", "moving_mean", "moving_variance")))
        elif kind == "flatten":
            module, flat = nn.Identity() if flat else Flatten(), True
        elif kind == "maxpool":
            module = nn.MaxPool2d(layer["pool"])
        elif kind == "avgpool":
            module = nn.AvgPool2d(layer["pool"])
        elif kind == "globalavgpool":
            module, flat = GlobalAverage(), True
        elif kind == "add":
            module = Add(layer.get("stride", 1))
            sources[len(modules)] = ends[i + 1 - layer["back"]]
        elif kind == "relu":
            module = nn.ReLU()
        elif kind == "dropout":
            module = nn.Dropout(layer.get("rate", 0))
        else:
            raise ValueError(f"unknown kind of layer: {kind}")
        modules.append(module)
        ends.append(len(modules) - 1)
    return Layers(modules, sources).eval()


def main():
    parser = argparse.ArgumentParser(description="Evaluate a disdel model with PyTorch.")
    parser.add_argument("model", help="what disdel models export wrote (.safetensors)")
    parser.add_argument("data", help="what disdel datasets export wrote (.npz)")
    parser.add_argument("--batch", type=int, default=256, help="images at once (default 256)")
    args = parser.parse_args()

    metadata, tensors = read_safetensors(args.model)
    spec = json.loads(metadata["disdel.model"])
    scale = json.loads(metadata["disdel.dataset"])["scale"]
    model = build(spec, tensors)

    with np.load(args.data) as arrays:
        images, labels = arrays["x_test"], arrays["y_test"]
    correct = 0
    with torch.no_grad():
        for at in range(0, len(images), args.batch):
            x = torch.from_numpy(images[at : at + args.batch]).to(torch.float32) * np.float32(scale)
            x = x.permute(0, 3, 1, 2)
            y = torch.from_numpy(labels[at : at + args.batch])
            correct += (model(x).argmax(dim=1) == y).sum().item()
    print(f"{spec['name']}: accuracy {100 * correct / len(images):.2f} % ({correct} of {len(images)} test records)")


if __name__ == "__main__":
    main()
