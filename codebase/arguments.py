"""The options of the command line: each is taken, or refused with a sentence."""

import argparse
import math
from collections.abc import Callable
from contextlib import suppress
from difflib import get_close_matches
from typing import Any, NoReturn

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
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if least <= value <= most:
            return value
        limits = f"{'a whole number' if kind is int else 'a number'} from {least} to {most}"
        meant = ""
        with suppress(ValueError, OverflowError):  # as of 2e4
            if least <= int(float(text)) == float(text) <= most:
                meant = f"; write {int(float(text))}"
        raise argparse.ArgumentTypeError(f"must be {limits}, not {text!r}{meant}")

    return parse


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a bad one exits with status 2 and a sentence on standard error."""
    parser = Parser(
        prog="run_vae.py",
        description="Train a variational autoencoder on MNIST, or load one; measure its bounds.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def add(option: str, explanation: str, default: object, **kind: Any) -> None:
        """Add an option with its default; a whole number from 1 unless it is of another kind."""
        kind = kind or {"type": number(int, 1), "metavar": "N"}
        parser.add_argument(f"--{option}", help=explanation, default=default, **kind)

    from_0 = {"type": number(int, 0), "metavar": "N"}
    weight = {"type": number(float, 0), "metavar": "X"}
    switch = {"type": number(int, 0, 1), "metavar": "{0,1}"}
    settings = Settings()
    add("z", "latent dimensions", settings.z, type=number(int, 1, 1_000), metavar="N")
    add("iter_max", "training steps", settings.iter_max)
    add("iter_save", "steps between checkpoints", 10_000)
    add("run", "number and seed of the run", settings.run, **from_0)
    train = {"type": number(int, 0, 2), "metavar": "{0,1,2}"}
    load = "0: load the model of step iter_max instead; 2: train, and print the negative IWAE too"
    add("train", load, 1, **train)
    add("resume", "1: go on from where the run was interrupted; 0: start anew", 0, **switch)
    add("nn", "networks, a file in codebase/models/nns", settings.nn, metavar="NAME")
    add("batch_size", "images in a training step", settings.batch_size)
    add("lr", "learning rate of Adam", settings.lr, type=number(float, 1e-9), metavar="X")
    linear = "linear: fall to 0 at iter_max, after a rise over the first 100 steps"
    add("lr_schedule", linear, settings.lr_schedule, choices=tuple(SCHEDULES))
    add("kl_weight", "weight of the KL in the loss", settings.kl_weight, **weight)
    auto = "auto: mnist if it is there or can be downloaded, else synthetic"
    add("dataset", f"mnist, synthetic, or {auto}", "auto", metavar="NAME")
    add("data_dir", "folder of the images", "data", metavar="DIR")
    add("runs", "number of runs, from --run on, to train or load; prints their table", 1)
    jobs = "runs at a time; 0: one for each core (or as OMP_NUM_THREADS says), one on a GPU"
    add("jobs", jobs, 0, **from_0)
    add("compare", "1: print a table of all settings that were trained, and end", 0, **switch)
    add("figures", "1: write all pictures into the run's folder as well", 0, **switch)
    add("explorer", "1: write a page to walk through the latent space", 0, **switch)
    add("device", "auto: a GPU if there is one; or cpu, cuda, cuda:1, ...", "auto", metavar="NAME")
    graph = "1: a GPU repeats a recording of a step; 0: it is told each part of each step"
    add("cuda_graph", graph, 1, **switch)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        meant = get_close_matches(unknown[0].split("=")[0], [f"--{name}" for name in vars(args)], 1)
        advice = f"; {meant[0]} is known" if meant else "; see --help"
        parser.error(f"unknown argument {unknown[0]}{advice}")
    return args


def differing(args: argparse.Namespace) -> str:
    """The arguments that are not the defaults, as the command line has them."""
    defaults = vars(parse_arguments([]))
    return " ".join(f"--{key} {x}" for key, x in vars(args).items() if x != defaults[key])
