#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a model in PyTorch on a data set that disdel has exported, for its accuracy.

The model and the scale of pixels are those of a plan, as "disdel plan DATASET --json"
prints it; layers, initial distributions, Adam, its schedule and batch normalisation are
disdel's. It prints one JSON object a line: the accuracy on the test part after each epoch.
"""

import argparse
import json
import math
import sys
import time

import peers


def accuracy(engine, x, y, scaled):
    right, batch = 0, 250
    with engine.torch.inference_mode():
        for at in range(0, len(x), batch):
            images, _ = engine.convert(*scaled(x[at : at + batch], y[at : at + batch]))
            logits, _ = peers.run_layers(engine.plan, engine, images, engine.parameters, engine.moving, False)
            right += int((logits.argmax(1).numpy() == y[at : at + batch]).sum())
    return right / len(x)


def learn(args):
    import numpy

    with open(args.plan) as file:
        numerics = json.load(file)["numerics"]
    plan, scale = peers.Plan(numerics["model"]), numpy.float32(numerics["dataset"]["scale"])

    def scaled(x, y):
        return x.astype("float32") * scale, y.astype("int32")

    data = numpy.load(args.data)
    x, y = data["x_train"], data["y_train"]
    engine = peers.Torch(plan, args.batch, args.threads, True, [], seed=args.seed)
    random = numpy.random.default_rng(args.seed)
    steps = -(-len(x) // args.batch)
    began = time.perf_counter()
    for epoch in range(args.epochs):
        order = random.permutation(len(x))
        for i in range(steps):
            if args.cosine:
                part = (epoch * steps + i) / (args.epochs * steps)
                for group in engine.adam.param_groups:
                    group["lr"] = peers.RATE * (1 + math.cos(math.pi * part)) / 2
            chosen = order[i * args.batch : (i + 1) * args.batch]
            engine.batches = [engine.convert(*scaled(x[chosen], y[chosen]))]
            # The first step's statistics replace those that nothing was learned from.
            engine.norm_momentum = (1 - peers.NORM_MOMENTUM) / (1 - peers.NORM_MOMENTUM ** (epoch * steps + i + 1))
            engine.take(0)
        peers.say(
            event="epoch", epoch=epoch + 1, loss=float(engine.finish()), seconds=round(time.perf_counter() - began, 1),
            accuracy=accuracy(engine, data["x_test"], data["y_test"], scaled))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", required=True, help="file that disdel plan --json has written")
    parser.add_argument("--data", required=True, help="file that disdel datasets export has written")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cosine", action="store_true", help="the learning rate goes down to zero along a cosine")
    args = parser.parse_args()
    if min(args.epochs, args.batch, args.threads) < 1:
        parser.error("numbers are 1 at least")
    peers.make_fair(args.threads)
    learn(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
