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

from codebase.compute.processor import choose_device, prepare_environment, prepared_processor

if __name__ == "__main__":
    prepare_environment()  # PyTorch reads the environment when it is imported.

import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders import conventional, products, project
from codebase.arguments import Parser, number
from codebase.datasets.loading import load
from codebase.settings import Settings
from codebase.system.errors import UserError

ROUNDS = 7
BUSY = "while True: pass"
# These settings reach the bound of the assignment's 20,000 steps, as docs/results.md shows.
RECIPE = Settings(batch_size=200, lr=0.01, lr_schedule="linear", iter_max=4000)


def time_blocks(
    steps: Iterator[None], count: int, wait: Callable[[], None], threads: int
) -> Iterator[float]:
    """Milliseconds per step, as wall time, of successive blocks of `count` steps.

    The first block begins with this number of threads, the others with that of the block before.
    """
    while True:
        torch.set_num_threads(threads)  # Another loop may have changed it.
        wait()
        start = time.perf_counter()
        for _ in range(count):
            next(steps)
        wait()
        threads = torch.get_num_threads()
        yield 1e3 * (time.perf_counter() - start) / count


def time_jax_blocks(images: Tensor, count: int) -> Iterator[float]:
    """Milliseconds per step of successive blocks of steps in JAX, in a process of its own."""
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


def print_table(times: dict[str, list[float]]) -> None:
    """Print the milliseconds per step of all rounds as a table in Markdown."""
    print("| | ms per step: median | least to most | steps per second | times the conventional |")
    print("| --- | --- | --- | --- | --- |")
    for name, ms in times.items():
        median = statistics.median(ms)
        ratios = [a / b for a, b in zip(times["conventional loop"], ms, strict=True)]
        extremes = f"{min(ms):.2f} to {max(ms):.2f}"
        ratio = f"{statistics.median(ratios):.2f}"
        print(f"| {name} | {median:.2f} | {extremes} | {1e3 / median:.0f} | {ratio} |")


def main() -> None:
    """Time all contenders in turn for several rounds, and print their times."""
    formatter = argparse.ArgumentDefaultsHelpFormatter
    parser = Parser(description=__doc__, allow_abbrev=False, formatter_class=formatter)
    add = parser.add_argument
    count = {"type": number(int, 1), "metavar": "N"}
    name = {"default": "auto", "metavar": "NAME", "help": "as for run_vae.py"}
    add("--against", choices=["jax"], help="another library, with the same networks and steps")
    add("--steps", **count, default=200, help=f"steps in each of {ROUNDS} rounds")
    add("--threads", **count, help="a fixed number of threads; else it follows the load")
    add("--busy", type=number(int, 0), metavar="N", default=0, help="busy loops to run beside it")
    add("--device", **name)
    add("--dataset", **name)
    add("--data_dir", default="data", metavar="DIR", help="folder of the images")
    args = parser.parse_args()
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)
        torch.set_num_threads(args.threads)
    try:
        device = choose_device(args.device)
        images = load(args.dataset, Path(args.data_dir))
    except (UserError, OSError) as error:
        parser.error(str(error))
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan
    wait = (lambda: None) if device.type == "cpu" else torch.accelerator.synchronize
    loops = {
        "conventional loop": conventional(images, device),
        "this project": project(images.train, device, Settings()),
        "its recipe": project(images.train, device, RECIPE),
        "matrix products alone": products(images.train, device),
    }
    if device.type == "cuda":
        without_graph = project(images.train, device, Settings(), cuda_graph=False)
        loops["this project without a CUDA graph"] = without_graph
    threads = torch.get_num_threads()
    timers = {name: time_blocks(each, args.steps, wait, threads) for name, each in loops.items()}
    missing = [name for name in ("jax", "optax") if not find_spec(name)]
    if args.against and missing:
        print(f"JAX is left out, because it needs {' and '.join(missing)}: pip install jax optax\n")
    elif args.against:
        timers["JAX, one compiled scan"] = time_jax_blocks(images.train, args.steps)
    times = {name: [] for name in timers}
    loops_beside = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(args.busy)]
    try:
        # In each round all contenders take turns, so that a change of the machine's speed affects
        # all of them.
        for _ in range(1 + ROUNDS):
            for name, timer in timers.items():
                times[name].append(next(timer))
    finally:
        for process in loops_beside:
            process.kill()
    times = {name: ms[1:] for name, ms in times.items()}  # The first round warms up.

    number_of_threads = f"{threads} threads" if args.threads else "threads that follow the load"
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {device}, "
        f"{number_of_threads}, {images.name}, {ROUNDS} rounds of {args.steps} steps, "
        f"load average {load_average:.1f} at the start, "
        f"{args.busy} busy loops beside it\n"
    )
    print_table(times)
    conventional_seconds = statistics.median(times["conventional loop"]) * 20_000 / 1e3
    recipe_seconds = statistics.median(times["its recipe"]) * RECIPE.iter_max / 1e3
    print(
        f"\nTime to the assignment's bound: {conventional_seconds:.0f} s by 20,000 steps of the "
        f"conventional loop, {recipe_seconds:.0f} s by {RECIPE.iter_max:,} of the recipe "
        f"with batches of {RECIPE.batch_size}"
    )
    if any(max(ms) > 1.3 * min(ms) for ms in times.values()):
        print("\nThe machine was busy: rounds differ by more than 30 %, so do not rely on them.")


if __name__ == "__main__":
    try:
        with prepared_processor():
            main()
    except KeyboardInterrupt:
        sys.exit(130)
