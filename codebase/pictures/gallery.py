"""Pictures of a run, apart from its samples: the learning curve, and what the model has learned."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from codebase.data import Images
from codebase.evaluate import device_of
from codebase.models.vae import VAE
from codebase.pictures import drawing, latent
from codebase.pictures.drawing import COLOURS
from codebase.runs.folder import RunFolder
from codebase.runs.results import ALL, SUBSET, TRAIN, VALID, Row, read_metrics
from codebase.settings import Settings
from codebase.system.errors import report_errors

PANELS = ("NELBO", "KL(q(z | x) || p(z))", "REC, -log p(x | z)")
# Label, colour and marker for each set of images; the last set is plotted on top.
STYLES = {
    TRAIN: ("training batches, mean of 100 steps", "0.6", ""),
    VALID: ("validation images", COLOURS[4], "^"),
    ALL: ("all test images", COLOURS[0], "s"),
    SUBSET: ("100 test images", COLOURS[2], "o"),
}


def write_all(
    model: VAE, images: Images, settings: Settings, failures: list[str], ending: str = "png"
) -> None:
    """Write every picture into the run's folder, print the paths, and collect failures.

    `ending` is png or pdf, the format of the files.
    """
    folder = RunFolder(settings)
    pictures = {
        "Learning curve": lambda: learning_curve(read_metrics(folder)),
        "Reconstructions": lambda: reconstructions(model, images),
        "Latent space": lambda: latent.latent_space(model, images),
        "Interpolation": lambda: interpolation(model, images),
    }
    for name, make in pictures.items():
        with report_errors(failures):
            path = folder.path / f"{name.lower().replace(' ', '_')}.{ending}"
            if figure := make():
                drawing.put_title(figure, f"{name}: {settings.title}")
                drawing.write_figure(figure, path)
                print(f"Visualization saved at {path}")
            else:
                print(f"No {path.name}: this run has nothing to show in it")


def learning_curve(rows: Sequence[Row]) -> Figure | None:
    """Plot NELBO, KL and REC against training steps; None if there are no rows.

    The upper panels show the whole run. The lower ones show the last three quarters of its steps,
    or more if that takes in three measurements of the test images, so that a difference of a nat
    can be seen.
    """
    if not rows:
        return None
    measured = sorted({row.step for row in rows if row.images == SUBSET})
    begin = min([max(row.step for row in rows) // 4, *measured[-3:-2]])
    figure, panels = drawing.new_figure(5, 2, 3)
    names = ("training steps", f"training steps from {begin:,} on")
    sets = {row.images for row in rows}
    for line, x, first in zip(panels, names, (0, begin), strict=True):
        for number, axes in enumerate(line):
            for images, (label, color, marker) in STYLES.items():
                if images in sets:
                    shown = [row for row in rows if row.images == images and row.step >= first]
                    steps = [row.step for row in shown]
                    bounds = [row.bounds[number] for row in shown]
                    axes.plot(steps, bounds, color=color, marker=marker, label=label, lw=1, ms=4)
            title = "" if first else PANELS[number]
            drawing.name_axes(axes, title, x, "" if number else "nats per image")
    for axes in panels[0]:
        axes.set_xscale("log")
    lines, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


@torch.no_grad()
def reconstructions(model: VAE, images: Images) -> Figure:
    """Show ten test images, their binarized inputs, and the means of p(x | E[z | x])."""
    x = images.subset_bits[::10]
    m, _ = model.enc.encode(x.to(device_of(model)))
    pixels = images.test[images.subset_indices[::10]] / 255
    figure, axes = drawing.new_figure(2.5)
    drawing.show_grid(axes, torch.cat([pixels, x, model.compute_sigmoid_given(m).cpu()]), 3, 10)
    drawing.label_cells(axes, ["image", "binarized input", "reconstruction"])
    return figure


@torch.no_grad()
def interpolation(model: VAE, images: Images) -> Figure:
    """Show ten steps between the posterior means of two test images, for five pairs."""
    x = images.subset_bits[::10].to(device_of(model))
    m, _ = model.enc.encode(x)
    steps = torch.linspace(0, 1, 10).to(m).view(1, 10, 1)
    z = torch.lerp(m[0::2, None], m[1::2, None], steps)
    means = model.compute_sigmoid_given(z.flatten(0, 1)).unflatten(0, (5, 10))
    rows = torch.cat([x[0::2, None], means, x[1::2, None]], 1)
    figure, axes = drawing.new_figure(3.6)
    drawing.show_grid(axes, rows.flatten(0, 1), 5, 12)
    drawing.label_cells(axes, columns={0: "input", 1: "0", 10: "1", 11: "input"})
    drawing.name_axes(axes, "", "share of the way between the posterior means")
    return figure
