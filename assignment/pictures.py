"""Finds the images in a student's picture, and describes them by numbers."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from assignment.answers import Part, Quantity, exact
from assignment.probe import Inputs, Record

# The random pixels in the middle of a picture's images, in blocks of 4 x 4 pixels.
PATTERN = torch.tensor([[1.0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
ROWS, COLUMNS = 10, 20


def describe_pictures(inputs: Inputs, record: Record) -> Part:
    """Describe two pictures (height, width, colours) that differ in the middle of each image."""
    first, second = (record[name].float() / 255 for name in ("random", "constant"))
    if first.shape != second.shape:
        return {"two pictures differ in size": Quantity()}
    changes = (first - second).abs().amax(-1)
    if changes.max() < 0.05:
        return {"the picture shows no sampled pixels": Quantity()}
    flags = changes > 0.1 * changes.max()
    rows, columns = intervals(flags.any(1)), intervals(flags.any(0))
    part = {"rows, columns of images": exact(torch.tensor([len(rows), len(columns)]))}
    if [len(rows), len(columns)] != [ROWS, COLUMNS]:
        return part
    # The middle of each image in cells of 2 x 2 pixels, and the colour of 0 above it.
    both = torch.stack([first, second]).permute(0, 3, 1, 2)
    above = [max(1, round((b - a) / 24)) for a, b in rows]
    zero = torch.stack(
        [
            both[..., max(a - k, 0) : a, c:d].mean((0, 2, 3))
            for (a, _), k in zip(rows, above, strict=True)
            for c, d in columns
        ]
    ).nanmean(0)
    crops = [both[..., a:b, c:d] for a, b in rows for c, d in columns]
    cells = torch.stack([interpolate(crop, (6, 10), mode="area") for crop in crops])
    cells = cells - zero[:, None, None]
    ratio = cells[:, 0].mean().abs() / cells[:, 1].mean().abs().clamp(1e-6)
    part["brightness of one picture by that of another"] = Quantity([ratio.item()], [0.02])
    distance = cells[:, 1].mean(0).norm(dim=0)
    ones = distance > distance.max() / 2
    blocks = ones.float().view(3, 2, 5, 2).mean((1, 3)) < 0.5
    part["the pixels at their places"] = exact(blocks.double())
    one = cells[:, 1].mean(0)[:, ones].mean(1)
    levels = torch.einsum("nkchw,c->nkhw", cells, one / one.square().sum())
    shown, levels = levels[:, 1][:, ones], levels[:, 0][:, ~ones]
    p = inputs["random logits"].max().sigmoid().item()
    part["images shown"] = exact(float((shown.mean(1) > 0.7).sum()))
    part["mean of the random pixels, less their probability"] = Quantity(
        [levels.mean().item() - p], [0.012]
    )
    noise = levels - levels.mean(0)
    variation = noise.square().mean().item() * 4 / (p * (1 - p))
    # Where pixels are smaller than those of the picture, they are averaged or left out.
    height = sum(b - a for a, b in rows) / len(rows)
    variation = variation if height >= 14.4 else min(variation, 1)
    part["variation of the random pixels"] = Quantity([round(variation, 3)], [0.075])
    dependence = noise.mean(1).var().item() * levels.shape[1] * 4 / (p * (1 - p))
    part["dependence of the random pixels of an image"] = Quantity([round(dependence, 3)], [0.6])
    scaled = noise / noise.norm(dim=1, keepdim=True).clamp(1e-6)
    repeated = ((scaled @ scaled.T).tril(-1) > 0.8).any(1).sum().item()
    # A few images may be alike by chance.
    part["different images"] = exact(
        float(len(crops) - (repeated if repeated > 3 and variation > 0.1 else 0))
    )
    return part


def intervals(flags: Tensor) -> list[tuple[int, int]]:
    """The half-open intervals in which flags (n,) are true."""
    edges = pad(flags.int(), (1, 1)).diff()
    starts, ends = ((edges == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))
