#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times training and inference of a model in TensorFlow, JAX or PyTorch.

The model is given in disdel's JSON form (docs/models.md), so that layers, shapes
and paddings are the same everywhere. README.md beside this file says how to
install the frameworks and how to read what this prints: one JSON object a line.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import math
import os
import sys
import time

MODULES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
# Each name that a framework's package may have on PyPI.
PACKAGES = {"tensorflow": ("tensorflow-cpu", "tensorflow"), "jax": ("jax",), "torch": ("torch",)}

# What glibc gives back to the kernel it has to ask for again in the next step.
# 32 MiB is the most that it takes as a threshold.
FAIR = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(16 << 20),
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "-1",
}

RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-7
NORM_MOMENTUM, NORM_EPSILON = 0.99, 1e-3


def say(**fields):
    print(json.dumps(fields), flush=True)


def peak_bytes():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def seconds_since_start():
    """Since this process was started; the kernel counts in hundredths."""
    with open("/proc/self/stat") as stat:
        ticks = int(stat.read().rsplit(")", 1)[1].split()[19])
    with open("/proc/uptime") as uptime:
        return float(uptime.read().split()[0]) - ticks / os.sysconf("SC_CLK_TCK")


def same_padding(size, kernel, stride):
    """Rows before and after, as Keras has them."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Plan:
    """A model's layers with the shapes between them, and its parameters."""

    def __init__(self, spec):
        shape = (spec["input"]["h"], spec["input"]["w"], spec["input"]["c"])
        self.classes = spec["classes"]
        self.input = shape
        self.layers = []
        self.parameters = []  # shapes, HWIO and [in, out]
        self.state = []  # shapes of moving statistics
        shapes = []
        for given in spec["layers"]:
            layer = dict(given)
            kind = layer["kind"]
            layer["at"], layer["from"] = len(self.parameters), shape
            h, w, c = shape
            if kind == "conv2d":
                k, s, f = layer["kernel"], layer.get("stride", 1) or 1, layer["filters"]
                same = layer.get("padding", "valid") == "same"
                pad = [same_padding(n, k, s) if same else (0, 0) for n in (h, w)]
                layer.update(stride=s, pad=pad)
                shape = tuple((n + sum(p) - k) // s + 1 for n, p in zip((h, w), pad)) + (f,)
                self.parameters.append((k, k, c, f))
                if not layer.get("no_bias"):
                    self.parameters.append((f,))
            elif kind in ("maxpool", "avgpool"):
                shape = (h // layer["pool"], w // layer["pool"], c)
            elif kind == "globalavgpool":
                shape = (1, 1, c)
            elif kind == "batchnorm":
                layer["state"] = len(self.state)
                self.parameters += [(c,), (c,)]
                self.state += [(c,), (c,)]
            elif kind == "flatten":
                shape = (1, 1, h * w * c)
            elif kind == "dense":
                self.parameters.append((h * w * c, layer["units"]))
                if not layer.get("no_bias"):
                    self.parameters.append((layer["units"],))
                shape = (1, 1, layer["units"])
            elif kind == "add":
                earlier = len(self.layers) - layer["back"]
                layer["stride"] = layer.get("stride", 1) or 1
                layer["lacks"] = c - (shapes[earlier] if earlier >= 0 else self.input)[2]
            elif kind not in ("relu", "dropout"):
                raise SystemExit(f"peers.py: a layer of kind {kind!r} is not known here")
            self.layers.append(layer)
            shapes.append(shape)
        self.shapes = shapes

    def initial(self, numpy, seed=1):
        """Glorot-uniform weights, zero biases; a gamma of ones."""
        random = numpy.random.default_rng(seed)
        gammas = {layer["at"] for layer in self.layers if layer["kind"] == "batchnorm"}
        values = []
        for i, shape in enumerate(self.parameters):
            if len(shape) == 1:
                values.append(numpy.full(shape, 1 if i in gammas else 0, "float32"))
                continue
            area = math.prod(shape[:-2])
            limit = math.sqrt(6 / (area * (shape[-2] + shape[-1])))
            values.append(random.uniform(-limit, limit, shape).astype("float32"))
        state = [numpy.full(s, i % 2, "float32") for i, s in enumerate(self.state)]
        return values, state


def run_layers(plan, ops, x, parameters, state, train):
    """The forward pass, in the words of ops; returns logits and batch statistics."""
    statistics, outputs = [], [x]
    for layer in plan.layers:
        kind, at = layer["kind"], layer["at"]
        bias = None
        if kind in ("conv2d", "dense") and not layer.get("no_bias"):
            bias = parameters[at + 1]
        if kind == "conv2d":
            x = ops.conv(x, parameters[at], bias, layer["stride"], layer["pad"])
        elif kind == "dense":
            x = ops.dense(x, parameters[at], bias)
        elif kind == "maxpool":
            x = ops.maxpool(x, layer["pool"])
        elif kind == "avgpool":
            x = ops.avgpool(x, layer["pool"])
        elif kind == "globalavgpool":
            x = ops.globalavgpool(x)
        elif kind == "relu":
            x = ops.relu(x)
        elif kind == "flatten":
            x = ops.flatten(x)
        elif kind == "dropout":
            if train:
                x = ops.dropout(x, layer["rate"])
        elif kind == "batchnorm":
            mean, variance = state[layer["state"]], state[layer["state"] + 1]
            x, found = ops.norm(x, parameters[at], parameters[at + 1], mean, variance, train)
            statistics += found
        elif kind == "add":
            # outputs[0] is the input, so this layer would be the next of the list.
            x = x + ops.shortcut(outputs[len(outputs) - 1 - layer["back"]], layer["stride"], layer["lacks"])
        outputs.append(x)
    return x, statistics


class TensorFlow:
    def __init__(self, plan, batch, threads, train, records):
        import numpy
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.tf, self.version = tf, tf.__version__
        values, state = plan.initial(numpy)
        parameters = [tf.Variable(v) for v in values]
        moving = [tf.Variable(v, trainable=False) for v in state]
        first = [tf.Variable(tf.zeros_like(p)) for p in parameters]
        second = [tf.Variable(tf.zeros_like(p)) for p in parameters]
        power1, power2 = tf.Variable(1.0), tf.Variable(1.0)

        @tf.function
        def step(x, y):
            with tf.GradientTape() as tape:
                logits, statistics = run_layers(plan, self, x, parameters, moving, True)
                losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, parameters)
            b1, b2 = power1.assign(power1 * BETA1), power2.assign(power2 * BETA2)
            for p, m, v, g in zip(parameters, first, second, gradients):
                tf.raw_ops.ResourceApplyAdam(
                    var=p.handle, m=m.handle, v=v.handle, beta1_power=b1, beta2_power=b2,
                    lr=RATE, beta1=BETA1, beta2=BETA2, epsilon=EPSILON, grad=g)
            for old, new in zip(moving, statistics):
                old.assign(old * NORM_MOMENTUM + new * (1 - NORM_MOMENTUM))
            return loss

        @tf.function
        def predict(x):
            return run_layers(plan, self, x, parameters, moving, False)[0]

        self.batches = [(tf.constant(x), tf.constant(y)) for x, y in records]
        self.call = step if train else lambda x, y: predict(x)

    def conv(self, x, w, bias, stride, pad):
        x = self.tf.nn.conv2d(x, w, stride, [(0, 0), *pad, (0, 0)])
        return x if bias is None else self.tf.nn.bias_add(x, bias)

    def dense(self, x, w, bias):
        x = self.tf.matmul(x, w)
        return x if bias is None else self.tf.nn.bias_add(x, bias)

    def maxpool(self, x, size):
        return self.tf.nn.max_pool2d(x, size, size, "VALID")

    def avgpool(self, x, size):
        return self.tf.nn.avg_pool2d(x, size, size, "VALID")

    def globalavgpool(self, x):
        return self.tf.reduce_mean(x, [1, 2])

    def relu(self, x):
        return self.tf.nn.relu(x)

    def flatten(self, x):
        return self.tf.reshape(x, [-1, math.prod(x.shape[1:])])

    def dropout(self, x, rate):
        return self.tf.nn.dropout(x, rate)

    def norm(self, x, gamma, beta, mean, variance, train):
        fused = self.tf.compat.v1.nn.fused_batch_norm
        if train:
            x, mean, variance = fused(x, gamma, beta, epsilon=NORM_EPSILON, is_training=True)
            return x, [mean, variance]
        x, _, _ = fused(x, gamma, beta, mean, variance, epsilon=NORM_EPSILON, is_training=False)
        return x, []

    def shortcut(self, x, stride, lacks):
        x = x[:, ::stride, ::stride] if stride > 1 else x
        return self.tf.pad(x, [(0, 0), (0, 0), (0, 0), (0, lacks)]) if lacks else x

    def take(self, i):
        self.last = self.call(*self.batches[i % len(self.batches)])

    def finish(self):
        return self.last.numpy()


class Jax:
    def __init__(self, plan, batch, threads, train, records):
        import jax
        import jax.numpy as jnp
        import numpy

        self.jax, self.jnp, self.version = jax, jnp, jax.__version__
        values, state = plan.initial(numpy)
        self.parameters = [jnp.array(v) for v in values]
        self.first = [jnp.zeros_like(p) for p in self.parameters]
        self.second = [jnp.zeros_like(p) for p in self.parameters]
        self.moving = [jnp.array(v) for v in state]
        self.count = jnp.zeros((), "int32")
        self.key, self.draws = None, 0

        def step(parameters, first, second, moving, count, x, y):
            self.key, self.draws = jax.random.fold_in(jax.random.key(1), count), 0

            def loss_of(parameters):
                logits, statistics = run_layers(plan, self, x, parameters, moving, True)
                right = jnp.take_along_axis(logits, y[:, None], 1)[:, 0]
                return jnp.mean(jax.nn.logsumexp(logits, 1) - right), statistics

            (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(parameters)
            count += 1
            t = count.astype("float32")
            alpha = RATE * jnp.sqrt(1 - BETA2**t) / (1 - BETA1**t)
            first = [m + (g - m) * (1 - BETA1) for m, g in zip(first, gradients)]
            second = [v + (g * g - v) * (1 - BETA2) for v, g in zip(second, gradients)]
            parameters = [
                p - alpha * m / (jnp.sqrt(v) + EPSILON) for p, m, v in zip(parameters, first, second)]
            moving = [o * NORM_MOMENTUM + n * (1 - NORM_MOMENTUM) for o, n in zip(moving, statistics)]
            return parameters, first, second, moving, count, loss

        def predict(parameters, moving, x):
            return run_layers(plan, self, x, parameters, moving, False)[0]

        self.batches = [(jnp.array(x), jnp.array(y)) for x, y in records]
        self.train = train
        self.step = jax.jit(step, donate_argnums=(0, 1, 2, 3, 4))
        self.predict = jax.jit(predict)
        # One call at a time is what latency means; larger ones may queue up.
        self.wait = batch == 1 and not train

    def conv(self, x, w, bias, stride, pad):
        x = self.jax.lax.conv_general_dilated(
            x, w, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return x if bias is None else x + bias

    def dense(self, x, w, bias):
        x = x @ w
        return x if bias is None else x + bias

    def windows(self, x, size):
        b, h, w, c = x.shape
        x = x[:, : h // size * size, : w // size * size]
        return x.reshape(b, h // size, size, w // size, size, c)

    def maxpool(self, x, size):
        # As a reduction over windows it is far slower backward on a CPU.
        return self.windows(x, size).max((2, 4))

    def avgpool(self, x, size):
        return self.windows(x, size).mean((2, 4))

    def globalavgpool(self, x):
        return x.mean((1, 2))

    def relu(self, x):
        return self.jnp.maximum(x, 0)

    def flatten(self, x):
        return x.reshape(x.shape[0], -1)

    def dropout(self, x, rate):
        self.draws += 1
        key = self.jax.random.fold_in(self.key, self.draws)
        kept = self.jax.random.bernoulli(key, 1 - rate, x.shape)
        return self.jnp.where(kept, x / (1 - rate), 0)

    def norm(self, x, gamma, beta, mean, variance, train):
        found = []
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, variance = x.mean(axes), x.var(axes)
            found = [mean, variance]
        scale = gamma / self.jnp.sqrt(variance + NORM_EPSILON)
        return x * scale + (beta - mean * scale), found

    def shortcut(self, x, stride, lacks):
        return self.jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, lacks)))

    def take(self, i):
        x, y = self.batches[i % len(self.batches)]
        if self.train:
            (self.parameters, self.first, self.second, self.moving, self.count, self.last) = self.step(
                self.parameters, self.first, self.second, self.moving, self.count, x, y)
            return
        self.last = self.predict(self.parameters, self.moving, x)
        if self.wait:
            self.last.block_until_ready()

    def finish(self):
        self.last.block_until_ready()
        self.jax.block_until_ready(self.parameters)
        return self.last


class Torch:
    def __init__(self, plan, batch, threads, train, records, seed=1):
        import numpy
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        torch.set_flush_denormal(True)
        self.torch, self.version = torch, torch.__version__
        self.nn = torch.nn.functional
        last = torch.channels_last
        values, state = plan.initial(numpy, seed)

        def tensor(v):
            # Kernels become OIHW, and lie in memory as the images do.
            if v.ndim == 4:
                return torch.from_numpy(v.transpose(3, 2, 0, 1).copy()).contiguous(memory_format=last)
            return torch.from_numpy(v.T.copy() if v.ndim == 2 else v)

        self.parameters = [tensor(v).requires_grad_(train) for v in values]
        self.moving = [torch.from_numpy(v) for v in state]
        self.batches = [self.convert(x, y) for x, y in records]
        self.plan, self.train, self.norm_momentum = plan, train, 1 - NORM_MOMENTUM
        if train:
            options = dict(lr=RATE, betas=(BETA1, BETA2), eps=EPSILON)
            try:
                self.adam = torch.optim.Adam(self.parameters, fused=True, **options)
            except (RuntimeError, TypeError):  # before 2.4 that is for other devices
                self.adam = torch.optim.Adam(self.parameters, **options)

    def convert(self, x, y):
        """Records and labels as the framework has them."""
        x = self.torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
        return x.contiguous(memory_format=self.torch.channels_last), self.torch.from_numpy(y).long()

    def conv(self, x, w, bias, stride, pad):
        (top, bottom), (left, right) = pad
        if top == bottom and left == right:
            return self.nn.conv2d(x, w, bias, stride, (top, left))
        return self.nn.conv2d(self.nn.pad(x, (left, right, top, bottom)), w, bias, stride)

    def dense(self, x, w, bias):
        return self.nn.linear(x, w, bias)

    def maxpool(self, x, size):
        return self.nn.max_pool2d(x, size)

    def avgpool(self, x, size):
        return self.nn.avg_pool2d(x, size)

    def globalavgpool(self, x):
        return x.mean((2, 3))

    def relu(self, x):
        return self.nn.relu(x)

    def flatten(self, x):
        return x.permute(0, 2, 3, 1).flatten(1) if x.ndim == 4 else x  # a view, no copy

    def dropout(self, x, rate):
        return self.nn.dropout(x, rate)

    def norm(self, x, gamma, beta, mean, variance, train):
        return self.nn.batch_norm(x, mean, variance, gamma, beta, train, self.norm_momentum, NORM_EPSILON), []

    def shortcut(self, x, stride, lacks):
        x = x[:, :, ::stride, ::stride]
        return self.nn.pad(x, (0, 0, 0, 0, 0, lacks)) if lacks else x

    def take(self, i):
        x, y = self.batches[i % len(self.batches)]
        if not self.train:
            with self.torch.inference_mode():
                self.last = run_layers(self.plan, self, x, self.parameters, self.moving, False)[0]
            return
        logits, _ = run_layers(self.plan, self, x, self.parameters, self.moving, True)
        loss = self.nn.cross_entropy(logits, y)
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.last = loss.detach()

    def finish(self):
        return self.last.numpy()


ENGINES = {"tensorflow": TensorFlow, "jax": Jax, "torch": Torch}


def versions():
    """Says which frameworks this interpreter has, without loading them."""
    for name, module in MODULES.items():
        if importlib.util.find_spec(module) is None:
            say(event="missing", framework=name, error=f"no module named {module}")
            continue
        version = ""
        for package in PACKAGES[name]:
            try:
                version = importlib.metadata.version(package)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
        say(event="found", framework=name, version=version)


def make_records(plan, batch, count):
    import numpy

    random = numpy.random.default_rng(2)
    made = []
    for _ in range(max(1, count // batch)):
        x = random.integers(0, 256, (batch, *plan.input)).astype("float32") / 256
        made.append((x, random.integers(0, plan.classes, batch).astype("int32")))
    return made


def measure(args):
    spec = args.spec
    if spec.startswith("@"):
        with open(spec[1:]) as file:
            spec = file.read()
    plan = Plan(json.loads(spec))
    train = args.mode == "train"
    engine = ENGINES[args.framework](plan, args.batch, args.threads, train, make_records(plan, args.batch, args.records))
    engine.take(0)
    value = engine.finish()
    say(event="ready", framework=args.framework, version=engine.version, batch=args.batch, threads=args.threads,
        mode=args.mode, parameters=sum(math.prod(s) for s in plan.parameters + plan.state),
        start_seconds=round(seconds_since_start(), 3), loss=float(value) if train else None)
    done = 1

    def chunk(steps):
        nonlocal done
        began = time.perf_counter()
        for i in range(done, done + steps):
            engine.take(i)
        engine.finish()
        seconds = time.perf_counter() - began
        done += steps
        say(event="chunk", steps=steps, seconds=seconds)
        return args.batch * steps / seconds

    if args.serve:
        for line in sys.stdin:
            chunk(int(line))
    else:
        rates = sorted(chunk(args.chunk) for _ in range(max(1, args.steps // args.chunk)))
        say(event="summary", steps=done - 1, best=rates[-1], median=(rates[(len(rates) - 1) // 2] + rates[len(rates) // 2]) / 2,
            least=rates[0])
    say(event="end", steps=done, peak_bytes=peak_bytes(), loss=float(engine.finish()) if train else None)


def make_fair(threads):
    """Starts this program again where its environment is not yet fair."""
    fair = dict(FAIR, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
    if any(os.environ.get(name) != value for name, value in fair.items()):
        # glibc reads its thresholds when a program starts.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **fair})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("versions", help="say which frameworks are there")
    run = commands.add_parser("run", help="measure one framework")
    run.add_argument("framework", choices=sorted(ENGINES))
    run.add_argument("--spec", required=True, help="the model as JSON, or @FILE")
    run.add_argument("--batch", type=int, default=64)
    run.add_argument("--threads", type=int, default=1)
    run.add_argument("--mode", choices=("train", "infer"), default="train")
    run.add_argument("--records", type=int, default=640, help="how many are held")
    run.add_argument("--steps", type=int, default=2000)
    run.add_argument("--chunk", type=int, default=100, help="steps that are timed together")
    run.add_argument("--serve", action="store_true", help="read the steps of each chunk from standard input")
    args = parser.parse_args()
    if args.command == "versions":
        return versions()
    if min(args.batch, args.threads, args.records, args.steps, args.chunk) < 1:
        parser.error("numbers are 1 at least")
    make_fair(args.threads)
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < args.threads:
        raise SystemExit(f"peers.py: {args.threads} threads, {len(allowed)} processors")
    os.sched_setaffinity(0, allowed[-args.threads :])
    if importlib.util.find_spec(MODULES[args.framework]) is None:
        say(event="missing", framework=args.framework, error=f"no module named {MODULES[args.framework]}")
        return 3
    measure(args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
