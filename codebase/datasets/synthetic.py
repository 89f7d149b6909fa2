"""Digits drawn as pen strokes, in the shape of MNIST, for a machine without a network.

Each digit is a few strokes through control points. For an image the points move at random, a
smooth curve is bent through them, slanted, scaled, rotated and shifted, and every pixel is inked by
its distance to the curve.
"""

import torch
from torch import Tensor

SIZE = 28
TRAIN_COUNTS = [6000] * 10
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # as in MNIST

# The strokes of each digit: control points (x, y) in a box from -1 to 1, y downwards.
# fmt: off
STROKES = [
    [[(0.1, -1), (-0.5, -0.6), (-0.6, 0.2), (-0.2, 0.9),
      (0.4, 0.8), (0.6, 0), (0.4, -0.8), (0.1, -1)]],
    [[(-0.3, -0.6), (0.05, -1)],
     [(0.05, -1), (0, 0), (0, 1)]],
    [[(-0.6, -0.5), (-0.1, -1), (0.5, -0.6), (0.2, 0.1), (-0.6, 0.9)],
     [(-0.6, 0.9), (0, 0.85), (0.7, 0.9)]],
    [[(-0.6, -0.8), (0, -1), (0.5, -0.6), (-0.1, -0.1)],
     [(-0.1, -0.1), (0.6, 0.4), (0.1, 1), (-0.6, 0.8)]],
    [[(-0.3, -1), (-0.6, 0.15)],
     [(-0.6, 0.15), (0, 0.2), (0.7, 0.1)],
     [(0.35, -0.6), (0.3, 0.2), (0.2, 1)]],
    [[(-0.4, -0.9), (0.6, -1)],
     [(-0.4, -0.9), (-0.5, -0.1)],
     [(-0.5, -0.1), (0.2, -0.3), (0.6, 0.3), (0.2, 0.95), (-0.6, 0.8)]],
    [[(0.4, -1), (-0.3, -0.4), (-0.5, 0.4), (0, 1), (0.5, 0.5), (0.1, 0.05), (-0.4, 0.5)]],
    [[(-0.6, -0.9), (0, -0.95), (0.6, -0.95)],
     [(0.6, -0.95), (0.1, 0), (-0.1, 1)]],
    [[(0, -0.05), (-0.5, -0.5), (0, -1), (0.5, -0.55), (0, -0.05)],
     [(0, -0.05), (-0.6, 0.5), (0, 1), (0.55, 0.5), (0, -0.05)]],
    [[(0.5, -0.7), (0, -1), (-0.5, -0.55), (-0.1, -0.1), (0.5, -0.7)],
     [(0.5, -0.7), (0.45, 0.2), (0.1, 1)]],
]
# fmt: on


def draw_digits(counts: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `counts[d]` images of each digit d, in random order.

    Returns:
        images (n, 784) uint8 and labels (n,) uint8, with n the sum of `counts`.
    """
    images = torch.cat([_draw(STROKES[d], n, generator) for d, n in enumerate(counts)])
    labels = torch.arange(10, dtype=torch.uint8).repeat_interleave(torch.tensor(counts))
    order = torch.randperm(len(labels), generator=generator)
    return images[order], labels[order]


def _draw(strokes: list[list[tuple[float, float]]], n: int, generator: torch.Generator) -> Tensor:
    """Draw n images of one digit, (n, 784) uint8."""

    def normal(mean: float, std: float, *shape: int) -> Tensor:
        """Noise for every image, (n, *shape)."""
        # Limited, so that no digit becomes unreadable or leaves the image.
        noise = torch.randn(n, *shape, generator=generator).clamp(-2, 2)
        return mean + std * noise

    # A point that two strokes share moves once, so that they stay joined.
    points = sorted({point for stroke in strokes for point in stroke})
    moved = torch.tensor(points) + normal(0, 0.08, len(points), 2)
    curves = [_smooth(moved[:, [points.index(point) for point in stroke]]) for stroke in strokes]
    starts = torch.cat([curve[:, :-1] for curve in curves], 1)
    ends = torch.cat([curve[:, 1:] for curve in curves], 1)

    angle, slant = normal(0, 0.1), normal(0.15, 0.15)
    width, height = normal(7.5, 0.9), normal(8.5, 0.7)
    across = torch.stack([width * angle.cos(), -height * (angle.sin() + slant)], -1)
    down = torch.stack([width * angle.sin(), height * angle.cos()], -1)
    affine = torch.stack([across, down], -1)
    shift = SIZE / 2 - 0.5 + normal(0, 0.7, 1, 2)
    radius = normal(1.25, 0.25, 1, 1)
    # In chunks that stay in a core's cache, which is several times faster than all at once.
    chunks = [x.split(32) for x in (starts @ affine + shift, ends @ affine + shift, radius)]
    return torch.cat([_ink(*chunk) for chunk in zip(*chunks, strict=True)])


def _smooth(controls: Tensor, pieces: int = 3) -> Tensor:
    """Points of the Catmull-Rom curve through controls (n, k, 2), with `pieces` per interval."""
    before = torch.cat([controls[:, :1], controls[:, :-2]], 1).unsqueeze(2)
    after = torch.cat([controls[:, 2:], controls[:, -1:]], 1).unsqueeze(2)
    a, b = controls[:, :-1].unsqueeze(2), controls[:, 1:].unsqueeze(2)
    t = (torch.arange(pieces) / pieces).unsqueeze(-1)
    curve = a + 0.5 * t * (
        (b - before) + t * (2 * before - 5 * a + 4 * b - after + t * (3 * (a - b) + after - before))
    )
    return torch.cat([curve.flatten(1, 2), controls[:, -1:]], 1)


def _ink(start: Tensor, end: Tensor, radius: Tensor) -> Tensor:
    """Render segments (n, s, 2) with a round pen of `radius` (n, 1, 1) as (n, 784) uint8."""
    grid = torch.arange(float(SIZE))
    along = end - start
    per_length = along / along.square().sum(-1, keepdim=True).clamp_min(1e-6)
    # Distances from the segment's start, (n, s, 1, 28) across and (n, s, 28, 1) down.
    x = (grid - start[..., :1]).unsqueeze(-2)
    y = (grid - start[..., 1:]).unsqueeze(-1)
    along_x, along_y = along[..., :1, None], along[..., 1:, None]
    t = (x * per_length[..., :1, None] + y * per_length[..., 1:, None]).clamp_(0, 1)
    gap_x = torch.addcmul(x, t, along_x, value=-1)
    gap_y = torch.addcmul(y, t, along_y, value=-1)
    distance = gap_x.square_().addcmul_(gap_y, gap_y).amin(1).sqrt_()
    # The edge of a stroke fades over about one pixel.
    return (255 * (radius + 0.5 - distance).clamp(0, 1)).round().to(torch.uint8).flatten(1)
