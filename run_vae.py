"""Train a variational autoencoder on MNIST, or load one, and report its bounds."""

import argparse
import sys
from collections.abc import Callable
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
        digits = text.isascii() and text.isdigit() and len(text) <= len(str(maximum))
        if not digits or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {minimum} to {maximum}, not {text!r}"
            )
        return int(text)

    return parse


def png_file(text: str) -> str:
    """The type of an argument that names a PNG file to write."""
    path = Path(text)
    if path.suffix.lower() != ".png" or path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(
            f"must be a file name ending in .png, in a folder that exists, not {text!r}"
        )
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
    add("--z", type=count, default=10, metavar="N", help="latent dimensions")
    add("--iter_max", type=count, default=20000, metavar="N", help="training steps")
    add("--iter_save", type=count, default=10000, metavar="N", help="steps between checkpoints")
    add("--run", type=whole_number(0), default=0, metavar="N", help="number and seed of the run")
    add(
        "--train",
        type=int,
        choices=(0, 1),
        default=1,
        help="1: train and report; 0: load the checkpoint of step iter_max and report",
    )
    add(
        "--dataset",
        choices=("auto", "mnist", "synthetic"),
        default="auto",
        help="auto: mnist if it is there or can be downloaded, else synthetic",
    )
    add("--data_dir", default="data", metavar="DIR", help="folder of the images")
    add("--device", default="auto", help="auto: a GPU if there is one; or cpu, cuda, cuda:1, ...")
    add(
        "--figure",
        type=png_file,
        default="./visualizing_result.png",
        metavar="FILE",
        help="picture of 200 samples",
    )
    return parser.parse_args(argv)


def report(args: argparse.Namespace) -> None:
    """Train or load the model, print its bounds and write the picture."""
    from codebase import checkpoint, data, evaluate, train, visualize
    from codebase.seeds import seeded

    name = checkpoint.model_name(args.z, args.run)
    folder = checkpoint.CHECKPOINTS / name
    device = train.choose_device(args.device)
    pprint(vars(args))
    print(f"Model name: {name}")
    print(f"Device: {device}")
    model = train.new_model(args.z, name, args.run)
    if not args.train:
        checkpoint.load_model(model, checkpoint.model_path(folder, args.iter_max))
    images = data.load(args.dataset, Path(args.data_dir))
    print(f"Data: {images.name}, {len(images.train)} training and {len(images.test)} test images")

    model.to(device)
    if args.train:
        train.train(
            model,
            images.train.to(device),
            folder,
            run=args.run,
            iter_max=args.iter_max,
            iter_save=args.iter_save,
        )
    test_sets = {
        "the report's 100 test images": (evaluate.report_images(images), 100),
        f"all {len(images.test)} test images": (evaluate.all_images(images), 10),
    }
    for label, (x, passes) in test_sets.items():
        nelbo, kl, rec = evaluate.bounds(model, x, passes)
        print(f"NELBO: {nelbo:.4f}. KL: {kl:.4f}. REC: {rec:.4f}        ({images.name}, {label})")
    if not args.train:
        x = evaluate.report_images(images)
        for iw in (1, 10, 100, 1000):
            print(f"Negative IWAE-{iw}: {evaluate.negative_iwae(model, x, iw):.4f}")
    with seeded(evaluate.SEED, device):
        visualize.visualize_samples(model, save_path=args.figure)
    print(f"Visualization saved at {args.figure}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, or 2 for a wrong argument, or 1 for any other error."""
    try:
        args = parse_arguments(argv)
    except SystemExit as stop:
        return stop.code
    from codebase.checkpoint import CheckpointError
    from codebase.data import DataError
    from codebase.train import DeviceError

    status = 1
    try:
        report(args)
        return 0
    except DeviceError as error:
        message, status = f"argument --device: {error}", 2
    except (CheckpointError, DataError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        message = "there is not enough memory; a smaller --z needs less"
    except KeyboardInterrupt:
        message, status = "interrupted", 130
    print(f"run_vae.py: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
