"""Train a variational autoencoder on MNIST, or load one, and measure its bounds."""

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from pprint import pprint

from codebase.drawing import FILE_TYPES
from codebase.environment import launched
from codebase.errors import Interrupted, explain
from codebase.models import nns
from codebase.settings import SCHEDULES, Settings
from codebase.streams import discard, only_errors, prepare_streams

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
    try:
        os.stat(text)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot be {text!r}: {error.strerror}") from None
    return text


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line; a bad one exits with status 2 and a sentence on standard error."""
    parser = Parser(
        prog="run_vae.py",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    count = {"type": whole_number(1), "metavar": "N"}
    switch = {"type": whole_number(0, 1), "metavar": "{0,1}"}
    add("--z", type=whole_number(1, 10_000), metavar="N", help="latent dimensions")
    add("--iter_max", **count, help="training steps")
    add("--iter_save", **count, help="steps between checkpoints")
    add("--run", type=whole_number(0), metavar="N", help="number and seed of the run")
    add("--train", **switch, help="0: load the model of step iter_max instead of training")
    add("--resume", **switch, help="1: go on from where the run was interrupted; 0: start anew")
    add("--nn", choices=nns.names(), help="networks, a file in codebase/models/nns")
    add("--batch_size", **count, help="images in a training step")
    add("--lr", type=learning_rate, metavar="X", help="learning rate of Adam")
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
    if args.jobs and launched()[1] > 1:
        parser.error("argument --jobs: torchrun decides how many runs there are at a time")
    if args.runs > 1 and "figure" in args:
        parser.error("argument --figure: of several runs, --figures 1 writes all pictures")
    return args


def run(args: argparse.Namespace) -> int:
    """Train or load, measure the bounds and write the pictures; give the exit status."""
    from codebase import checkpoint, data, distributed, evaluate, explorer, machine, visualize
    from codebase.progress import Bar
    from codebase.replicates import replicate
    from codebase.seeds import seeded
    from codebase.train import load_trained, train

    machine.prepare_processor()
    device = machine.choose_device(args.device)
    with distributed.assembled(device) as team:
        # With several runs, standard output is the table's alone.
        with redirect_stdout(sys.stderr if args.runs > 1 else sys.stdout):
            pprint(vars(args))
            images = team.in_turn(lambda name: data.load(name, Path(args.data_dir)), args.dataset)
            options = {key: getattr(args, key) for key in Settings._fields}
            settings = Settings(**options | {"dataset": images.name})
            if args.runs == 1:
                print(f"Model name: {settings.name}")
            print(f"Device: {device}")
            sizes = f"{len(images.train)} training and {len(images.test)} test images"
            print(f"Data: {images.name}, {sizes}")
        if args.runs > 1:
            runs = [settings._replace(run=args.run + number) for number in range(args.runs)]
            return replicate(runs, args, device, team)

        if args.train:
            with Bar(settings.run, settings.iter_max) as bar:
                model = train(
                    settings,
                    images,
                    device,
                    iter_save=args.iter_save,
                    resume=bool(args.resume),
                    team=team,
                    show=bar.show,
                )
    if not team.first:
        return 0
    if not args.train:
        model = load_trained(settings, device)
    for label, (nelbo, kl, rec) in evaluate.measure(model, images).items():
        print(f"NELBO: {nelbo:.4f}. KL: {kl:.4f}. REC: {rec:.4f}        ({images.name}, {label})")
    if not args.train:
        x = evaluate.subset_images(images)
        for iw in (1, 10, 100, 1000):
            print(f"Negative IWAE-{iw}: {evaluate.negative_iwae(model, x, iw):.4f}")
    folder = checkpoint.run_folder(settings)
    for path in figure_paths(getattr(args, "figure", None), settings, folder):
        with seeded(evaluate.SEED, device):
            visualize.visualize_samples(model, save_path=path, title=settings.title)
        print(f"Visualization saved at {path}")
    if args.figures:
        for path in visualize.write_all(model, images, settings):
            print(f"Visualization saved at {path}")
    if args.explorer:
        path = folder / "explorer.html"
        explorer.write(model, images, settings.title, path)
        print(f"Explorer saved at {path}; open it in a browser")
    return 0


def figure_paths(figure: str | None, settings: Settings, folder: Path) -> list[str | Path]:
    """Where the picture of samples is written: where it was asked for, and in the run's folder."""
    name = "visualizing_result.png"
    if figure is None and settings.name == Settings(run=settings.run).name:
        figure = f"./{name}"
    paths = [figure] if figure else []
    return [*paths, folder / name] if os.access(folder, os.W_OK) else paths


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, 2 for a wrong argument, 128 + a signal, or 1 for the rest."""
    rank, size, _ = launched()
    try:
        with only_errors() if rank else nullcontext():
            args = parse_arguments(argv)
        status = run(args)
        sys.stdout.flush()  # so that an output that is full or closed is noticed here
        return status
    except SystemExit as stop:  # of the parser
        return stop.code
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        discard(sys.stdout)
        return 1
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        name = f"run_vae.py, process {rank}" if size > 1 else "run_vae.py"
        if not rank or not isinstance(error, Interrupted):  # the first one says it for all
            print(f"{name}: {message}", file=sys.stderr)
        return getattr(error, "status", 1)


if __name__ == "__main__":
    prepare_streams()
    os.environ["MPLBACKEND"] = "agg"  # pictures go to files, whatever a notebook would show
    # Training saves on Ctrl-C. Outside of it there is nothing to save: the program ends at once.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    status = main()
    if launched()[1] > 1:
        # Gloo's threads outlive their group. If one of them still holds a tensor while Python ends
        # in its usual way, the process aborts.
        os._exit(status)
    sys.exit(status)
