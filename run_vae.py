"""Train a variational autoencoder on MNIST, or load one, and measure its bounds."""

import os
import signal
import sys
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # which `python -P` leaves out
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:0] = [here] if here not in sys.path else []

from codebase.arguments import differing, parse_arguments
from codebase.settings import Settings
from codebase.system import processor, streams
from codebase.system.errors import ONLY_MEASURED, Interrupted, UserError, explain, told

# What is slow to import is imported where it is used, so that --help and bad input answer at once.
if TYPE_CHECKING:
    import torch

    from codebase.data import Images
    from codebase.models.vae import VAE
    from codebase.runs.team import Team


def run(args: Namespace) -> int:
    """Do what the arguments say; give the exit status."""
    if args.compare:
        from codebase.runs.compare import compare

        if processor.place_in_team()[0] == 0:
            compare()
        return 0
    from codebase.datasets.loading import load
    from codebase.models import nns
    from codebase.runs.team import assembled
    from codebase.train import load_trained, new_model, train

    device = processor.choose_device(args.device)
    if args.nn not in nns.names():
        raise UserError(f"argument --nn: must be {' or '.join(nns.names())}, not {args.nn!r}", 2)
    if args.explorer and not find_spec("codebase.pictures.explorer"):
        raise UserError("argument --explorer: the page is not part of this hand-out", 2)
    with processor.prepared_processor(), assembled(device) as team:
        # With several runs, standard output is the table's alone.
        with redirect_stdout(sys.stderr if args.runs > 1 else sys.stdout):
            print(f"Arguments: {differing(args) or 'none'}")
            folder = Path(os.path.expanduser(args.data_dir))
            # What "auto" is, the first process decides for all.
            images = load(args.dataset, folder) if team.first else None
            dataset = team.from_first(images.name if images else "")
            images = images or load(dataset, folder)
            options = {key: getattr(args, key) for key in Settings._fields}
            settings = Settings(**options | {"dataset": dataset})
            if args.runs == 1:
                print(f"Model name: {settings.name}")
            print(f"Device: {device}")
            sizes = f"{len(images.train)} training and {len(images.test)} test images"
            print(f"Data: {dataset}, {sizes}")
        if args.explorer:
            from codebase.pictures import explorer  # which is no part of the hand-out

            explorer.check(new_model(settings))
        if args.runs > 1:
            return run_several(args, settings, device, team)
        if args.train:
            resume, cuda_graph = bool(args.resume), bool(args.cuda_graph)
            options = {"resume": resume, "cuda_graph": cuda_graph, "iter_save": args.iter_save}
            model = train(settings, images, device, team=team, **options)
        elif team.first:
            model = load_trained(settings, device)
        return report(args, settings, images, model) if team.first else 0


def run_several(args: Namespace, first: Settings, device: "torch.device", team: "Team") -> int:
    """Start this program for each run, and print and save their table; give the exit status."""
    import torch

    from codebase.runs.folder import is_used, run_folder
    from codebase.runs.several import run_each
    from codebase.runs.table import make_table, print_table, save_table

    runs = [first._replace(run=first.run + number) for number in range(args.runs)]
    earlier = [settings.name for settings in runs if is_used(run_folder(settings))]
    if earlier and args.train and not args.resume:
        kept = f"Earlier runs are kept under other names, such as {earlier[0]}.1"
        print(f"{kept}; --resume 1 would go on with them", file=sys.stderr)
    threads = torch.get_num_threads()
    jobs = args.jobs or (threads if device.type == "cpu" and team.size == 1 else 1)
    options = vars(args) | {"dataset": first.dataset, "device": device, "runs": 1, "jobs": 0}
    command = [sys.executable, __file__, *(f"--{key}={value}" for key, value in options.items())]
    failures = team.gather(run_each(runs[team.rank :: team.size], command, jobs, threads))
    table = make_table(runs, failures)
    if team.first:
        path = save_table(runs, failures)  # before it is printed, which may fail
        print(f"Saved to {path}", file=sys.stderr)
        print(f"Bounds in nats per image, {path.stem}\n")
        print_table(table)
    return int(any(line[1].startswith("failed: ") for line in table))


def report(args: Namespace, settings: Settings, images: "Images", model: "VAE") -> int:
    """Print the bounds of a model and write its pictures; give the exit status."""
    from codebase import evaluate, visualize
    from codebase.pictures import gallery
    from codebase.runs.folder import run_folder
    from codebase.runs.metrics import bounds_after, write_bounds
    from codebase.runs.record import write_results
    from codebase.system.seeds import seeded

    folder, step = run_folder(settings), settings.iter_max
    failures: list[str] = []
    bounds: dict[str, Any] = bounds_after(folder, step) if args.train else {}
    if not bounds:
        bounds = evaluate.measure(model, images)
        with told(failures):
            write_bounds(folder, step, bounds)
    subset = "the assignment's 100" if images.name == "mnist" else "100 test images"
    labels = {evaluate.TEST: subset, evaluate.ALL_TEST: f"all {len(images.test)} test images"}
    for name, b in bounds.items():
        of = f"({images.name}, {labels[name]})"
        print(f"NELBO: {b.nelbo:.4f}. KL: {b.kl:.4f}. REC: {b.rec:.4f}  {of}")
    x, iwae = evaluate.subset_images(images), dict[int, float]()
    with told(failures):
        for iw in (1, 10, 100, 1000) if args.train != 1 else ():
            iwae[iw] = evaluate.negative_iwae(model, x, iw)
            print(f"Negative IWAE-{iw}: {iwae[iw]:.4f}")
    with told(failures):
        write_results(folder, step, bounds, evaluate.kl_of_images(model, x), iwae)
    # The assignment's picture lies where the program was started.
    is_assignment = settings._replace(dataset="mnist").name == Settings(run=settings.run).name
    for place in (Path(), folder) if is_assignment else (folder,):
        with told(failures), seeded(evaluate.SEED, evaluate.device_of(model)):
            path = place / "visualizing_result.png"
            visualize.visualize_samples(model, save_path=path, title=settings.title)
            print(f"Visualization saved at {os.path.join(place, path.name)}")
    if args.figures:
        gallery.write_all(model, images, settings, failures)
    if args.explorer:
        with told(failures):
            from codebase.pictures import explorer

            path = folder / "explorer.html"
            explorer.write(model, images, settings.title, path)
            print(f"Explorer saved at {path}; open it in a browser")
    return ONLY_MEASURED if failures else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0, 2 for a wrong argument, 128 + a signal, or 1 for the rest.

    3 says that the bounds are there, and something that comes after them is not.
    Nothing in Python is changed afterwards, so that it may be called in a notebook.
    """
    with streams.lenient_streams() as (output, _):
        status = attempt(argv)
        output.flush()
        if output.error:
            reason = f"standard output cannot be written: {output.error.strerror}"
            print(f"run_vae.py: {reason}; the numbers of a run are in its folder", file=sys.stderr)
        return status or int(output.error is not None)


def attempt(argv: list[str] | None) -> int:
    """Run the command line, and tell what a user can mend in a sentence."""
    rank, size, _ = processor.place_in_team()
    name = f"run_vae.py, process {rank}" if size > 1 else "run_vae.py"
    try:
        with streams.only_errors() if rank else nullcontext():
            args = parse_arguments(argv)
        return run(args)
    except SystemExit as stop:  # of the parser
        return int(stop.code or 0)
    except KeyboardInterrupt:  # outside of training, where there is nothing to save
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if not rank or not isinstance(error, Interrupted):  # the first one says it for all
            print(f"{name}: {message}", file=sys.stderr)
        return getattr(error, "status", 1)


if __name__ == "__main__":
    with processor.prepared_environment():
        status = main()
    if processor.place_in_team()[1] > 1:
        # Gloo's threads outlive their group. If one of them still holds a tensor while Python ends
        # in its usual way, the process aborts.
        os._exit(status)
    sys.exit(status)
