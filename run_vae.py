"""Train a variational autoencoder on MNIST, or load one, and measure its bounds."""

import builtins
import os
import signal
import sys
from argparse import Namespace
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from codebase.arguments import non_defaults, parse_arguments
from codebase.compute import processor
from codebase.settings import Settings
from codebase.system import streams
from codebase.system.errors import Interrupted, UserError, explain

# Slow modules are imported where they are used, so that --help and bad input answer at once.
if TYPE_CHECKING:
    import torch

    from codebase.compute.processes import Processes


def run(args: Namespace) -> int:
    """Do what the arguments say, and return the exit status."""
    if args.compare:
        from codebase.runs.tables import compare

        if processor.torchrun_ranks()[0] == 0:
            compare()
        return 0
    if args.explorer and not find_spec("codebase.pictures.explorer"):
        raise UserError("argument --explorer: the page is not part of this hand-out", 2)
    import codebase.visualize  # noqa: F401  # imported now, so that a mistake in it shows
    from codebase.compute.processes import connected
    from codebase.datasets import loading
    from codebase.evaluate import evaluation_mode
    from codebase.report import report
    from codebase.train import load_trained, train

    processor.check_defaults()
    # A process that only starts others does not need the GPU.
    device = processor.choose_device(args.device, probe=args.runs == 1)
    with processor.prepared_processor(), connected(device) as processes:
        folder = Path(os.path.expanduser(args.data_dir))
        if args.dataset == "auto" and args.data_dir != "data":
            args.dataset = "mnist"  # a folder that is named and lacks it is a slip of typing
        dataset = loading.resolve(args.dataset, folder) if processes.first else ""
        images = loading.load(processes.broadcast(dataset), folder).hold_out(args.valid)
        settings = Settings(**{key: getattr(args, key) for key in Settings._fields})
        settings = settings._replace(dataset=images.name)
        # With several runs, standard output is only for their table.
        with redirect_stdout(sys.stderr if args.runs > 1 else sys.stdout):
            print(f"Arguments: {non_defaults(args) or 'none'}")
            if args.runs == 1:
                print(f"Model name: {settings.name}")
            print(f"Device: {device}")
            held_out = f", {len(images.valid)} validation" if len(images.valid) else ""
            sizes = f"{len(images.train)} training{held_out} and {len(images.test)} test images"
            print(f"Data: {images.name}, {sizes}")
        if args.runs > 1:
            return run_several(args, settings, device, processes)
        if args.train:
            model, measured = train(
                settings, images, device, args.iter_save, args.resume, processes, args.cuda_graph
            )
        elif processes.first:
            model, measured = load_trained(settings, device), None
        if not processes.first:
            return 0
        with evaluation_mode(model):
            return report(args, settings, images, model, measured)


def run_several(
    args: Namespace, settings: Settings, device: "torch.device", processes: "Processes"
) -> int:
    """Start this program for each run, report their table, and return the exit status."""
    import torch

    from codebase.runs import tables
    from codebase.runs.folder import RunFolder
    from codebase.runs.several import run_each

    runs = [settings._replace(run=settings.run + number) for number in range(args.runs)]
    earlier = [run.name for run in runs if RunFolder(run).is_used()]
    if earlier and args.train and not args.resume:
        renamed = f"Earlier runs will be renamed, for example to {earlier[0]}.1"
        print(f"{renamed}; --resume 1 would continue them", file=sys.stderr)
    threads = torch.get_num_threads()
    default = threads if device.type == "cpu" and processes.size == 1 else 1
    jobs = args.jobs or default
    own_device = device if processes.size > 1 else args.device
    child = vars(args) | {"dataset": settings.dataset, "device": own_device, "runs": 1, "jobs": 0}
    command = [sys.executable, __file__, *(f"--{key}={value}" for key, value in child.items())]
    own = runs[processes.rank :: processes.size]
    failures = processes.gather(run_each(own, command, jobs, threads))
    return tables.report_runs(runs, failures) if processes.first else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: everything was done; 1: an error; 2: a wrong argument; 3: the bounds are there, but a later
    part of the report failed; 128 + n: ended by signal n. A notebook may call it, because it leaves
    the session unchanged.
    """
    rank, size, _ = processor.torchrun_ranks()
    name = f"run_vae.py, process {rank}" if size > 1 else "run_vae.py"
    try:
        with streams.silenced() if rank else nullcontext():
            args = parse_arguments(argv)
        return run(args)
    except SystemExit as stop:  # raised by the parser
        return int(stop.code or 0)
    except KeyboardInterrupt:  # outside of training there is nothing to save
        print(f"{name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        status = getattr(error, "status", 1)
        if rank == 0 or not isinstance(error, Interrupted):  # a signal stops all processes
            print(f"{name}: {message}", file=sys.stderr)
        return status


if __name__ == "__main__":
    streams.configure_output()
    environment = dict(os.environ)
    processor.prepare_environment()
    try:
        status = main()
    finally:  # restores the environment of a notebook's session
        os.environ.clear()
        os.environ.update(environment)
    status = streams.flush_output(status)
    if processor.torchrun_ranks()[1] > 1:
        # Gloo's threads outlive their group. If one of them still holds a tensor while Python ends
        # in its usual way, the process aborts.
        os._exit(status)
    if not hasattr(builtins, "get_ipython"):  # %run would add "SystemExit" to our sentence
        sys.exit(status)
