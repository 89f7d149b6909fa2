"""The options of the command line."""

import argparse
import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, NoReturn

from codebase.datasets.sources import SOURCES
from codebase.settings import SCHEDULES, VERSION, Settings

NETWORKS = [str(Path(__file__).parent / "models" / "nns")]  # each file has the networks of a name
DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "npu", "hpu", "mtia")
USAGE = """run_vae.py [options]

train for 1,000 steps; load that model and make its pictures; train ten runs:
  python run_vae.py --iter_max 1000
  python run_vae.py --iter_max 1000 --train 0 --figures
  python run_vae.py --runs 10"""
# What people type for an option that has another name.
SYNONYMS = {
    **dict.fromkeys(("steps", "num_steps", "iterations"), "iter_max"),
    **dict.fromkeys(("z_dim", "latent_dim", "latent_size"), "z"),
    **dict.fromkeys(("beta", "kl"), "kl_weight"),
    **dict.fromkeys(("gpu", "cuda"), "device cuda"),
    **dict.fromkeys(("cpu", "no_cuda", "no_gpu"), "device cpu"),
    **dict.fromkeys(("model", "network"), "nn"),
    **dict.fromkeys(("test", "eval"), "train 0"),
    **{"epochs": "iter_max (an epoch of MNIST has 600 steps)", "seed": "run"},
    **{"learning_rate": "lr", "workers": "jobs"},
}


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


def one_of(choices: Iterable[str], ending: str = "") -> dict[str, Any]:
    """Options for an argument that is one of the names, in any case, before a pattern `ending`."""

    def parse(text: str) -> str:
        """Read one argument."""
        for name in (text, text.lower()):
            if re.fullmatch(f"({'|'.join(choices)}){ending}", name):
                return name
        raise argparse.ArgumentTypeError(f"must be {' or '.join(choices)}, not {text!r}")

    return {"type": parse, "metavar": "NAME"}


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line. Bad input exits with status 2 and a sentence on standard error."""
    parser = Parser(
        prog="run_vae.py",
        usage=USAGE,
        description="Train a variational autoencoder on MNIST, or load one; measure its bounds.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"vae-mnist {VERSION}")

    def add(option: str, explanation: str, default: object, **kind: Any) -> None:
        """Add an option to the group, by default a whole number of at least 1."""
        kind = kind or {"type": number(int, 1), "metavar": "N"}
        group.add_argument(f"--{option}", help=explanation, default=default, **kind)

    from_0 = {"type": number(int, 0), "metavar": "N"}
    positive = {"type": number(float, 1e-9), "metavar": "X"}
    weight = {"type": number(float, 0), "metavar": "X"}
    # An option without a value is switched on.
    switch = {"type": number(int, 0, 1), "metavar": "{0,1}", "nargs": "?", "const": 1}
    default = Settings()
    group = parser.add_argument_group("the assignment")
    add("z", "latent dimensions", default.z, type=number(int, 1, 1_000), metavar="N")
    add("iter_max", "training steps", default.iter_max)
    add("iter_save", "steps between checkpoints", 10_000)
    add("run", "number and seed of the run", default.run, **from_0)
    measured = "1: train and measure; 0: load the model of step iter_max and measure it"
    train = f"{measured}; 2: train, and measure importance-weighted bounds (IWAE), too"
    add("train", train, 1, type=number(int, 0, 2), metavar="{0,1,2}")
    group = parser.add_argument_group("several runs")
    add("resume", "continue an interrupted or shorter run, not start a new one", 0, **switch)
    add("runs", "number of runs, starting at --run; prints their table", 1)
    add("jobs", "runs at the same time; 0: one per core, one on a GPU", 0, **from_0)
    add("compare", "print a table of all trained settings and exit", 0, **switch)
    group = parser.add_argument_group("model and training")
    names = sorted(module.name for module in iter_modules(NETWORKS))
    add("nn", "a file in codebase/models/nns", default.nn, **one_of(names))
    add("batch_size", "images in a training step", default.batch_size)
    add("lr", "learning rate of Adam", default.lr, **positive)
    linear = "constant, or linear: rise for 100 steps, then fall to 0 at iter_max"
    add("lr_schedule", linear, default.lr_schedule, **one_of(SCHEDULES))
    add("kl_weight", "weight of the KL in the loss", default.kl_weight, **weight)
    group = parser.add_argument_group("images")
    names = ["auto", *SOURCES, "synthetic"]
    auto = "synthetic, or auto: mnist if found or downloaded, else synthetic"
    add("dataset", f"{', '.join(SOURCES)}, {auto}", "auto", **one_of(names))
    add("data_dir", "folder of the images", "data", metavar="DIR")
    add("valid", "training images held out for validation, the last ones", default.valid, **from_0)
    group = parser.add_argument_group("results")
    add("iwae", "samples of the IWAE bound on all test images, as 5000 in papers", 0, **from_0)
    pdf = {"choices": ("0", "1", "pdf"), "nargs": "?", "const": "1"}
    add("figures", "also write all pictures into the run's folder; pdf: as PDF", "0", **pdf)
    add("explorer", "write a page that explores the latent space", 0, **switch)
    group = parser.add_argument_group("processor")
    gpu = "auto: a GPU if there is one; or cpu, cuda, cuda:1, ..."
    add("device", gpu, "auto", **one_of(DEVICES, r"(:\d+)?"))
    add("cuda_graph", "compute gradients on a GPU as a CUDA graph", 1, **switch)
    # The names of options may be written with dashes, too.
    name, texts = re.compile(r"^--[^=]+"), sys.argv[1:] if argv is None else argv
    texts = [name.sub(lambda found: f"--{found[0][2:].replace('-', '_')}", text) for text in texts]
    args, unknown = parser.parse_known_args(texts)
    if unknown:
        known = {option: option for option in vars(args)} | SYNONYMS
        typed = unknown[0].partition("=")[0].strip("-").lower()
        close = get_close_matches(typed, known, 1)
        advice = f"; did you mean --{known[close[0]]}?" if close else "; see --help"
        parser.error(f"unknown argument {unknown[0]}{advice}")
    return args


def non_defaults(args: argparse.Namespace) -> str:
    """The arguments that differ from the defaults, as on the command line."""
    defaults = vars(parse_arguments([]))
    return " ".join(f"--{key} {x}" for key, x in vars(args).items() if x != defaults[key])
