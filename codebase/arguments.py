"""The options of the command line."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NoReturn

from codebase.datasets.sources import SOURCES
from codebase.settings import SCHEDULES, Settings


class Parser(argparse.ArgumentParser):
    """An argument parser that answers bad input with one sentence, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        """Print the message on standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def number(
    kind: type[int] | type[float], least: float, most: float = 1_000_000_000
) -> Callable[[str], float]:
    """The type of an argument that is a number within limits."""

    def parse(text: str) -> float:
        """Read one argument."""
        with suppress(ValueError, OverflowError):  # 2e4 is a whole number, too
            value = kind(float(text))
            if value == float(text) and least <= value <= most:
                return value
        limits = f"{'a whole number' if kind is int else 'a number'} from {least} to {most}"
        raise argparse.ArgumentTypeError(f"must be {limits}, not {text!r}")

    return parse


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line. Bad input exits with status 2 and a sentence on standard error."""
    parser = Parser(
        prog="run_vae.py",
        description="Train a variational autoencoder on MNIST, or load one; measure its bounds.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def add(option: str, explanation: str, default: object, **kind: Any) -> None:
        """Add an option, by default a whole number of at least 1."""
        kind = kind or {"type": number(int, 1), "metavar": "N"}
        parser.add_argument(f"--{option}", help=explanation, default=default, **kind)

    from_0 = {"type": number(int, 0), "metavar": "N"}
    positive = {"type": number(float, 1e-9), "metavar": "X"}
    weight = {"type": number(float, 0), "metavar": "X"}
    switch = {"type": number(int, 0, 1), "metavar": "{0,1}"}
    train = {"type": number(int, 0, 2), "metavar": "{0,1,2}"}
    name = {"metavar": "NAME"}
    default = Settings()
    add("z", "latent dimensions", default.z, type=number(int, 1, 1_000), metavar="N")
    add("iter_max", "training steps", default.iter_max)
    add("iter_save", "steps between checkpoints", 10_000)
    add("run", "number and seed of the run", default.run, **from_0)
    add("train", "1: train; 0: load the model of step iter_max; 2: train, measure IWAE", 1, **train)
    add("resume", "1: continue an interrupted or shorter run; 0: start a new one", 0, **switch)
    add("nn", "networks, a file in codebase/models/nns", default.nn, **name)
    add("batch_size", "images in a training step", default.batch_size)
    add("lr", "learning rate of Adam", default.lr, **positive)
    linear = "linear: rise for 100 steps, then fall to 0 at iter_max"
    add("lr_schedule", linear, default.lr_schedule, choices=tuple(SCHEDULES))
    add("kl_weight", "weight of the KL in the loss", default.kl_weight, **weight)
    names = ", ".join([*SOURCES, "synthetic"])
    add("dataset", f"{names}, or auto: mnist if found or downloaded", "auto", **name)
    add("data_dir", "folder of the images", "data", metavar="DIR")
    add("valid", "training images held out for validation, the last ones", default.valid, **from_0)
    add("iwae", "samples of the IWAE bound on all test images, as 5000 in papers", 0, **from_0)
    add("runs", "number of runs, starting at --run; prints their table", 1)
    add("jobs", "runs at the same time; 0: one per core, one on a GPU", 0, **from_0)
    add("compare", "1: print a table of all trained settings and exit", 0, **switch)
    figures = "1: also write all pictures into the run's folder; pdf: write them as PDF"
    add("figures", figures, "0", choices=("0", "1", "pdf"))
    add("explorer", "1: write a page that explores the latent space", 0, **switch)
    add("device", "auto: a GPU if there is one; or cpu, cuda, cuda:1, ...", "auto", **name)
    add("cuda_graph", "compute gradients on a GPU as a CUDA graph (1) or not (0)", 1, **switch)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        close = get_close_matches(unknown[0].split("=")[0], [f"--{name}" for name in vars(args)], 1)
        advice = f"; did you mean {close[0]}?" if close else "; see --help"
        parser.error(f"unknown argument {unknown[0]}{advice}")
    return args


def non_defaults(args: argparse.Namespace) -> str:
    """The arguments that differ from the defaults, as on the command line."""
    defaults = vars(parse_arguments([]))
    return " ".join(f"--{key} {x}" for key, x in vars(args).items() if x != defaults[key])
