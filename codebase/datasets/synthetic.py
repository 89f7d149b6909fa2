"""Random digits in the shape of MNIST, for a machine without a network."""

import torch
import torch.nn.functional as F
from torch import Tensor

TRAIN_COUNTS = [6000] * 10
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # MNIST's counts
GLYPHS = """\
.###. ..#.. .###. .###. .#... ##### ..##. ##### .###. .###.
#...# .##.. #...# #...# .#... #.... .#... ....# #...# #...#
#...# ..#.. ....# ....# #..#. ####. #.... ...#. #...# #...#
#...# ..#.. ...#. ..##. #..#. ....# ####. ...#. .###. .####
#...# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# ..#.. #...# ...#.
.###. ..#.. ##### .###. ...#. .###. .###. ..#.. .###. .##..""".splitlines()


def make(counts: list[int], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (n, 784) and labels (n,), uint8: `counts[d]` of each digit d, in random order."""
    labels = torch.arange(10).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    fields = torch.stack([_closeness(digit) for digit in range(10)])
    chunks = labels.split(500)  # small enough for a core's cache
    return torch.cat([_ink(fields[chunk], generator) for chunk in chunks]), labels.byte()


def _closeness(d: int) -> Tensor:
    """1 minus the distance from the strokes of digit d, on a fine grid around it, (1, 41, 33)."""
    dots = torch.tensor([[c == "#" for c in row.split()[d]] for row in GLYPHS]).nonzero().float()
    for reach in (1.5, 0.75):  # adds the midpoints between neighbours, twice, to form strokes
        dots = dots[(torch.cdist(dots, dots) < reach).nonzero()].mean(1)
    grid = torch.cartesian_prod(torch.arange(-2, 8.1, 0.25), torch.arange(-2, 6.1, 0.25))
    return 1 - torch.cdist(grid, dots).amin(1).view(1, 41, 33)


def _ink(field: Tensor, generator: torch.Generator) -> Tensor:
    """Images (n, 784) uint8 of fields of closeness (n, 1, 41, 33), slanted and bent at random."""
    # The noise is limited, so that no digit becomes unreadable or leaves the image.
    noise = 0.07 * torch.randn(len(field), 39, generator=generator).clamp(-2, 2)
    affine = torch.tensor([[1.2, 0.15, 0], [0, 1.2, 0]]) + noise[:, :6].view(-1, 2, 3)
    mesh = F.affine_grid(affine, [len(field), 1, 4, 4], True) + noise[:, 6:38].view(-1, 4, 4, 2)
    grid = F.interpolate(mesh.permute(0, 3, 1, 2), 28, mode="bilinear", align_corners=True)
    closeness = F.grid_sample(field, grid.permute(0, 2, 3, 1), align_corners=True).flatten(1)
    return (255 * (2.2 * (closeness - 0.27 + noise[:, 38:])).clamp(0, 1)).round().byte()
