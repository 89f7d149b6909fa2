"""The options of the command line: each is taken, or refused with a sentence."""

import argparse
import math
import os
from collections.abc import Callable

from codebase.models import nns
from codebase.pictures.drawing import FILE_TYPES
from codebase.settings import SCHEDULES, Settings
from codebase.system.processor import place_in_team


class Parser(argparse.ArgumentParser):
    """An argument parser that answers bad input with one sentence, without the usage before it."""

    def error(self, message: str) -> None:
        """Print the message on standard error and exit with status 2."""
        self.exit(2, f"{self.prog}: {message}\n")


def whole_number(minimum: int, maximum: int = 1_000_000_000) -> Callable[[str], int]:
    """The type of an argument that is a whole number within limits."""

    def parse(text: str) -> int:
        """Read one argument."""
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(maximum))
        if not digits or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {minimum} to {maximum}, not {text!r}"
            )
        return int(text)

    return parse


def positive_number(text: str) -> float:
    """The type of an argument that is a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return value


def data_set(text: str) -> str:
    """The type of an argument that names a data set."""
    if text != "auto":
        from codebase.data import DATASETS

        if text not in DATASETS:
            raise argparse.ArgumentTypeError(f"must be {' or '.join(DATASETS)}, not {text!r}")
    return text


def picture(text: str) -> str:
    """The type of an argument that names a picture to write."""
    folder = os.path.dirname(text) or "."
    if not text.lower().endswith(tuple(FILE_TYPES)) or os.path.isdir(text):
        endings = ", ".join(FILE_TYPES)
        raise argparse.ArgumentTypeError(f"must be a file name in {endings}, not {text!r}")
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be in a folder that can be written, not {text!r}")
    return text


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a bad one exits with status 2 and a sentence on standard error."""
    parser = Parser(
        prog="run_vae.py",
        description="Train a variational autoencoder on MNIST, or load one; measure its bounds.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    count = {"type": whole_number(1), "metavar": "N"}
    switch = {"type": whole_number(0, 1), "metavar": "{0,1}"}
    add("--z", type=whole_number(1, 1_000), metavar="N", help="latent dimensions")
    add("--iter_max", **count, help="training steps")
    add("--iter_save", **count, help="steps between checkpoints")
    add("--run", type=whole_number(0), metavar="N", help="number and seed of the run")
    add("--train", **switch, help="0: load the model of step iter_max instead of training")
    add("--resume", **switch, help="1: go on from where the run was interrupted; 0: start anew")
    add("--nn", choices=nns.names(), help="networks, a file in codebase/models/nns")
    add("--batch_size", **count, help="images in a training step")
    add("--lr", type=positive_number, metavar="X", help="learning rate of Adam")
    add(
        "--lr_schedule",
        choices=tuple(SCHEDULES),
        help="linear: fall to 0 at iter_max, after a rise over the first 100 steps",
    )
    add(
        "--dataset",
        type=data_set,
        metavar="NAME",
        help="mnist, synthetic, or auto: mnist if it is there or can be downloaded, else synthetic",
    )
    add("--data_dir", metavar="DIR", help="folder of the images")
    add(
        "--runs",
        type=whole_number(1, 10_000),
        metavar="N",
        help="number of runs, from --run on, to train or load; prints their table",
    )
    add(
        "--jobs",
        type=whole_number(0),
        metavar="N",
        help="runs at a time; 0: one for each core (or as OMP_NUM_THREADS says), one on a GPU",
    )
    add("--figures", **switch, help="1: write all pictures into the run's folder as well")
    add(
        "--figure",
        type=picture,
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="picture of 200 samples, .png, .pdf or .svg, beside the one in the run's folder "
        "(default: ./visualizing_result.png with the assignment's settings)",
    )
    add("--explorer", **switch, help="1: write a page to walk through the latent space")
    add("--device", help="auto: a GPU if there is one; or cpu, cuda, cuda:1, ...")
    parser.set_defaults(
        **Settings()._asdict() | {"dataset": "auto"},
        iter_save=10000,
        train=1,
        resume=0,
        data_dir="data",
        runs=1,
        jobs=0,
        figures=0,
        explorer=0,
        device="auto",
    )
    args = parser.parse_args(argv)
    if args.jobs and place_in_team()[1] > 1:
        parser.error("argument --jobs: torchrun decides how many runs there are at a time")
    if args.runs > 1 and "figure" in args:
        parser.error("argument --figure: of several runs, --figures 1 writes all pictures")
    return args
