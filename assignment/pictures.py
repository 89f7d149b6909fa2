"""Finds the images in a student's picture, and describes them by numbers."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from assignment.answers import Part, Quantity, exact
from assignment.inputs import PATTERN, Inputs
from assignment.probe import Record

ROWS, COLUMNS = 10, 20
# The pattern of an image that is transposed, as seen in as many blocks as the pattern has.
ON_ITS_SIDE = torch.tensor([[0.0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]])


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
    # The colour of 0 is that of the pixels above the middle of an image.
    height = sum(b - a for a, b in rows) / ROWS
    strip = max(1, round(height / 24))
    above = [first[a - strip : a, c:d].mean((0, 1)) for a, _ in rows for c, d in columns]
    zero = torch.stack(above).nanmean(0)
    # The middle of each image in cells of 2 x 2 pixels: (images, pictures, colours, 6, 10).
    both = torch.stack([first, second]).permute(0, 3, 1, 2)
    crops = [both[..., a:b, c:d] for a, b in rows for c, d in columns]
    cells = torch.stack([interpolate(crop, (6, 10), mode="area") for crop in crops])
    # Where the pixels are not random, they are all 1 in the second picture.
    brightness = (cells[:, 1].mean(0) - zero[:, None, None]).norm(dim=0)
    is_fixed = brightness > brightness.max() / 2
    blocks = (is_fixed.float().view(3, 2, 5, 2).mean((1, 3)) < 0.5).float()
    axes: list[list[int]] = [[], [0], [1], [0, 1]]
    expected = [x.flip(each) for x in (PATTERN, ON_ITS_SIDE) for each in axes]
    if blocks.any() and not any(blocks.equal(each) for each in expected):
        return part | {"the middle of an image is not where it belongs": Quantity()}
    places = " / ".join("".join(map(str, row)) for row in blocks.int().tolist())
    part[f"random pixels (1) in the middle of an image: {places}"] = Quantity()
    one = cells[:, 1].mean(0)[:, is_fixed].mean(1)
    axis = (one - zero) / (one - zero).square().sum()
    levels = torch.einsum("npchw,c->nphw", cells - zero[:, None, None], axis)
    random, fixed = levels[:, 0][:, ~is_fixed], levels[:, 1][:, is_fixed]
    p = inputs["random logits"].max().sigmoid().item()
    part["images shown"] = exact(float((fixed.mean(1) > 0.7).sum()))
    excess = random.mean().item() - p
    part["mean of the random pixels, less their probability"] = Quantity([excess], [0.012])
    noise = random - random.mean(0)
    variation = noise.square().mean().item() * 4 / (p * (1 - p))  # A cell has four pixels.
    # Where pixels are smaller than those of the picture, they are averaged or left out. Where every
    # second one is shown, the variation depends on the size of the picture.
    variation = min(variation, 1.75 if height >= 14.4 else 1)
    part["variation of the random pixels"] = Quantity([round(variation, 3)], [0.075])
    dependence = noise.mean(1).var().item() * random.shape[1] * 4 / (p * (1 - p))
    part["dependence of the random pixels of an image"] = Quantity([round(dependence, 3)], [0.6])
    scaled = noise / noise.norm(dim=1, keepdim=True).clamp(1e-6)
    repeated = ((scaled @ scaled.T).tril(-1) > 0.8).any(1).sum().item()
    # A few images may be alike by chance.
    is_repeated = repeated > 3 and variation > 0.1
    part["different images"] = exact(float(len(crops) - (repeated if is_repeated else 0)))
    return part


def intervals(flags: Tensor) -> list[tuple[int, int]]:
    """The half-open intervals in which flags (n,) are true."""
    edges = pad(flags.int(), (1, 1)).diff()
    starts, ends = ((edges == sign).nonzero().flatten().tolist() for sign in (1, -1))
    return list(zip(starts, ends, strict=True))
