"""Train a variational autoencoder on MNIST, or load one, and report its bounds."""

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from pprint import pprint

# What is slow to import is imported where it is used, so that --help and bad input answer at once.


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


def learning_rate(text: str) -> float:
    """The type of an argument that is a positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a positive number, not {text!r}")
    return value


def png_file(text: str) -> str:
    """The type of an argument that names a PNG file to write."""
    folder = os.path.dirname(text) or "."
    if not text.lower().endswith(".png") or os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"must be a file name ending in .png, not {text!r}")
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        raise argparse.ArgumentTypeError(f"must be in a folder that can be written, not {text!r}")
    return text


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a bad one exits with status 2 and a sentence on standard error."""
    parser = Parser(
        prog="run_vae.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, count = parser.add_argument, whole_number(1)
    switch = {"type": whole_number(0, 1), "metavar": "{0,1}"}
    add("--z", type=whole_number(1, 10_000), default=10, metavar="N", help="latent dimensions")
    add("--iter_max", type=count, default=20000, metavar="N", help="training steps")
    add("--iter_save", type=count, default=10000, metavar="N", help="steps between checkpoints")
    add("--run", type=whole_number(0), default=0, metavar="N", help="number and seed of the run")
    add(
        "--train",
        **switch,
        default=1,
        help="1: train and report; 0: load the checkpoint of step iter_max and report",
    )
    add(
        "--dataset",
        choices=("auto", "mnist", "synthetic"),
        default="auto",
        help="auto: mnist if it is there or can be downloaded, else synthetic",
    )
    add("--lr", type=learning_rate, default=1e-3, metavar="X", help="learning rate of Adam")
    add(
        "--lr_schedule",
        choices=("constant", "linear"),
        default="constant",
        help="linear: fall to 0 at iter_max, after a rise over the first 100 steps",
    )
    add(
        "--resume",
        **switch,
        default=0,
        help="1: go on from where the run was interrupted; 0: start anew",
    )
    add(
        "--runs",
        type=whole_number(1, 10_000),
        default=1,
        metavar="N",
        help="train, or load, the runs RUN, RUN + 1, ... and print their table",
    )
    add(
        "--jobs",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="runs at a time; 0: one a core on a CPU, one on a GPU",
    )
    add(
        "--figures",
        **switch,
        default=0,
        help="1: write all pictures into the run's folder as well",
    )
    add("--data_dir", default="data", metavar="DIR", help="folder of the images")
    add("--device", default="auto", help="auto: a GPU if there is one; or cpu, cuda, cuda:1, ...")
    add(
        "--figure",
        type=png_file,
        default="./visualizing_result.png",
        metavar="FILE",
        help="picture of 200 samples, for a single run",
    )
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> int:
    """Train or load, report the bounds and write the picture; the exit status is returned."""
    from codebase import checkpoint, data, evaluate, machine, report, visualize
    from codebase.seeds import seeded

    machine.prepare_processor()
    device = machine.choose_device(args.device)
    # With several runs, standard output is the table's alone.
    with redirect_stdout(sys.stderr if args.runs > 1 else sys.stdout):
        name = checkpoint.model_name(args.z, args.run)
        pprint(vars(args))
        if args.runs == 1:
            print(f"Model name: {name}")
        print(f"Device: {device}")
        if not args.train and args.runs == 1:
            model = report.load_run(args, args.run, device)  # before anything is downloaded
        images = data.load(args.dataset, Path(args.data_dir))
        print(
            f"Data: {images.name}, {len(images.train)} training and {len(images.test)} test images"
        )
    if args.runs > 1:
        return 1 if report.replicate(args, images, device) else 0

    if args.train:
        model, _ = report.train_run(args, args.run, images, device)
    for label, (nelbo, kl, rec) in evaluate.measure(model, images).items():
        print(f"NELBO: {nelbo:.4f}. KL: {kl:.4f}. REC: {rec:.4f}        ({images.name}, {label})")
    if not args.train:
        x = evaluate.report_images(images)
        for iw in (1, 10, 100, 1000):
            print(f"Negative IWAE-{iw}: {evaluate.negative_iwae(model, x, iw):.4f}")
    title = report.title(args, model, images)
    with seeded(evaluate.SEED, device):
        visualize.visualize_samples(model, save_path=args.figure, title=title)
        print(f"Visualization saved at {args.figure}")
        if args.figures:
            for path in visualize.write_all(model, images, title, checkpoint.CHECKPOINTS / name):
                print(f"Visualization saved at {path}")
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for a wrong argument, or 1 for any other error."""
    try:
        args = parse_arguments(argv)
    except SystemExit as stop:
        return stop.code
    from codebase.signals import leaving_at_once

    with leaving_at_once():
        from torch import OutOfMemoryError

        from codebase.errors import DeviceError, Interrupted, UserError

    try:
        return run(args)
    except DeviceError as error:
        message, status = f"argument --device: {error}", 2
    except Interrupted as stop:
        message, status = str(stop), 128 + stop.signal
    except KeyboardInterrupt:
        message, status = "interrupted", 130
        if args.train:
            message += "; the same command with --resume 1 goes on from what is saved"
    except UserError as error:
        message, status = str(error), 1
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        status = 1
    except OutOfMemoryError:
        message, status = f"the device {args.device} has not enough memory free", 1
    print(f"run_vae.py: {message}", file=sys.stderr)
    return status


def terminate(number: int, _frame: object) -> None:
    """End the program as SIGTERM does, but let it clean up on the way."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, terminate)
    sys.exit(main())
