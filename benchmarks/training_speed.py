"""Time the training step beside the conventional loop, its matrix products alone, and JAX."""

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from codebase.system.processor import choose_device, prepare_environment, prepared_processor

if __name__ == "__main__":
    prepare_environment()  # which PyTorch reads when it is imported

import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders import conventional, products, project
from codebase.arguments import Parser, number
from codebase.datasets.loading import load
from codebase.settings import Settings
from codebase.system.errors import UserError

ROUNDS = 7
# What ends at the bound that the assignment's 20,000 steps end at, as docs/results.md shows.
RECIPE = Settings(batch_size=200, lr=0.01, lr_schedule="linear", iter_max=4200)


def blocks(steps: Iterator[None], count: int, wait: Callable[[], None]) -> Iterator[float]:
    """Milliseconds of wall time of one step, over one block of `count` of them after the other."""
    while True:
        wait()
        start = time.perf_counter()
        for _ in range(count):
            next(steps)
        wait()
        yield 1e3 * (time.perf_counter() - start) / count


def jax_blocks(images: Tensor, count: int) -> Iterator[float]:
    """The same for the steps in JAX, which has a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.npy")
        np.save(path, images.numpy())
        command = [sys.executable, Path(__file__).with_name("jax_steps.py"), path, str(count)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            try:
                while True:
                    process.stdin.write("\n")
                    yield float(process.stdout.readline())
            finally:
                process.kill()


def main() -> None:
    """Time the contenders in turn, several rounds, and print a table as Markdown."""
    parser = Parser(
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, count, threads = parser.add_argument, number(int, 1), torch.get_num_threads()
    add("--against", choices=["jax"], help="another library, with the same networks and steps")
    add("--steps", type=count, default=200, metavar="N", help=f"in each of {ROUNDS} rounds")
    add("--threads", type=count, default=threads, metavar="N", help="of PyTorch on the CPU")
    add("--device", default="auto", metavar="NAME", help="as for run_vae.py")
    add("--dataset", default="auto", metavar="NAME", help="as for run_vae.py")
    add("--data_dir", default="data", metavar="DIR", help="folder of the images")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    try:
        device = choose_device(args.device)
        images = load(args.dataset, Path(args.data_dir))
    except (UserError, OSError) as error:
        parser.error(str(error))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    wait = (lambda: None) if device.type == "cpu" else torch.accelerator.synchronize
    contenders = {
        "conventional loop": blocks(conventional(images, device), args.steps, wait),
        "this project": blocks(project(images.train, device, Settings()), args.steps, wait),
        "its recipe": blocks(project(images.train, device, RECIPE), args.steps, wait),
        "matrix products alone": blocks(products(images.train, device), args.steps, wait),
    }
    if device.type == "cuda":
        steps = project(images.train, device, Settings(), cuda_graph=False)
        contenders["this project without a CUDA graph"] = blocks(steps, args.steps, wait)
    if args.against and (missing := [name for name in ("jax", "optax") if not find_spec(name)]):
        print(f"Without JAX: {' and '.join(missing)} not installed (pip install jax optax).\n")
    elif args.against:
        contenders["JAX, one compiled scan"] = jax_blocks(images.train, args.steps)
    times = {name: [] for name in contenders}
    for _ in range(1 + ROUNDS):  # in turn, so that a machine's changes of speed meet all of them
        for name, measured in contenders.items():
            times[name].append(next(measured))
    times = {name: ms[1:] for name, ms in times.items()}  # the first round warms up

    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {device}, "
        f"{torch.get_num_threads()} threads, {images.name}, {ROUNDS} rounds of {args.steps} steps, "
        f"load {busy:.1f} at the start\n"
    )
    print("| | ms per step: median | least to most | steps per second | times the conventional |")
    print("| --- | --- | --- | --- | --- |")
    for name, ms in times.items():
        median = statistics.median(ms)
        ratios = [a / b for a, b in zip(times["conventional loop"], ms, strict=True)]
        print(
            f"| {name} | {median:.2f} | {min(ms):.2f} to {max(ms):.2f} | {1e3 / median:.0f} "
            f"| {statistics.median(ratios):.2f} |"
        )
    runs = {"conventional loop": Settings(), "its recipe": RECIPE}
    seconds = {name: statistics.median(times[name]) * s.iter_max / 1e3 for name, s in runs.items()}
    print(
        f"\nTo the assignment's bound: {seconds['conventional loop']:.0f} s by 20,000 steps of the "
        f"conventional loop, {seconds['its recipe']:.0f} s by {RECIPE.iter_max:,} of the recipe "
        f"with batches of {RECIPE.batch_size}"
    )
    if any(max(ms) > 1.3 * min(ms) for ms in times.values()):
        print(
            "\nThe rounds differ by more than 30 %: the machine was busy, and none of this holds."
        )


if __name__ == "__main__":
    try:
        with prepared_processor():
            main()
    except KeyboardInterrupt:
        sys.exit(130)
