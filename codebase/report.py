"""The report on a model: its bounds, its pictures, and the files that hold them."""

import math
import os
from argparse import Namespace
from functools import partial
from pathlib import Path

from codebase import evaluate, visualize
from codebase.bounds import Measured
from codebase.compute.processor import ONE_OF_SEVERAL
from codebase.data import Images
from codebase.models.vae import VAE
from codebase.pictures import gallery
from codebase.runs.folder import RunFolder
from codebase.runs.results import write_iwae_of_all, write_results
from codebase.settings import Settings
from codebase.system.errors import ONLY_MEASURED, UserError, report_errors
from codebase.system.files import write_atomically
from codebase.system.seeds import seeded
from codebase.system.streams import with_bar


def report(
    args: Namespace, settings: Settings, images: Images, model: VAE, measured: Measured | None
) -> int:
    """Print the bounds of a model, write its pictures, and return the exit status.

    `measured` is None unless training has just measured the bounds.
    """
    folder, step = RunFolder(settings), settings.iter_max
    failures: list[str] = []
    if measured is None:
        measured = evaluate.measure(model, images)
        if not math.isfinite(measured.subset.nelbo + measured.all.nelbo):
            raise UserError("the bounds of this model are not finite; train again, or load another")
    hundred = "the assignment's 100" if images.name == "mnist" else "100 test images"
    subset = f"{images.name}, {hundred}"
    everything = f"{images.name}, all {len(images.test)} test images"
    held_out = f"{images.name}, {len(images.valid)} validation images"
    sets = ((measured.subset, subset), (measured.all, everything), (measured.valid, held_out))
    for bounds, name in sets:
        if bounds:
            nelbo = _plus_minus(bounds.nelbo, bounds.error)
            print(f"NELBO: {nelbo}. KL: {bounds.kl:.2f}. REC: {bounds.rec:.2f}  ({name})")
    iwae: dict[int, float] = {}
    kl_of_dimensions: list[float] = []
    with report_errors(failures):
        for iw in () if args.train == 1 else (1, 10, 100, 1000):
            iwae[iw] = evaluate.negative_iwae(model, images.subset_bits, iw)
            print(f"Negative IWAE-{iw}: {iwae[iw]:.2f}  ({subset})")
    with report_errors(failures):
        kl_of_dimensions = evaluate.kl_of_dimensions(model, images.subset_bits).tolist()
    with report_errors(failures):
        write_results(folder, step, measured, kl_of_dimensions, iwae)
    if args.iwae:
        with report_errors(failures, optional=False):
            show = partial(with_bar, description=f"IWAE-{args.iwae}")
            x = images.test_bits
            bound, error = evaluate.iwae_and_error(model, x, args.iwae, show)
            active = evaluate.active_units(model, x)
            print(f"Negative IWAE-{args.iwae}: {_plus_minus(bound, error)}  ({everything})")
            bits = bound / (784 * math.log(2))
            print(f"Active units: {active} of {model.z_dim}. Bits per dimension: {bits:.4f}")
            write_iwae_of_all(folder, step, args.iwae, bound, error, bits, active)
    picture = folder.path / "visualizing_result.png"
    with report_errors(failures), seeded(evaluate.SEED, evaluate.device_of(model)):
        visualize.visualize_samples(model, save_path=picture, title=settings.title)
        print(f"Visualization saved at {picture}")
        # A single run of the assignment also saves the picture in the current folder.
        assignment = Settings(iter_max=step, dataset=images.name, run=settings.run)
        if settings == assignment and ONE_OF_SEVERAL not in os.environ:
            write_atomically(Path(picture.name), picture.read_bytes())
            print(f"Visualization saved at ./{picture.name}")
    if args.figures != "0":
        ending = "pdf" if args.figures == "pdf" else "png"
        gallery.write_all(model, images, settings, failures, ending)
    if args.explorer:
        with report_errors(failures):
            from codebase.pictures import explorer

            path = folder.path / "explorer.html"
            explorer.write(model, images, settings.title, path)
            print(f"Explorer saved at {path}; open it in a browser")
    return ONLY_MEASURED if failures else 0


def _plus_minus(value: float, error: float) -> str:
    """A value with its standard error, if that is known."""
    return f"{value:.2f}" if math.isnan(error) else f"{value:.2f} ± {error:.2f}"
