"""A page to walk through the latent space: one HTML file with the model inside.

How it looks and what it computes is in explorer.html beside this file; here its content is put in.
"""

import base64
import hashlib
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from codebase.data import Images, subset_rows
from codebase.evaluate import all_images, device_of, kl_of_dimensions, subset_images
from codebase.models.vae import VAE
from codebase.pictures.latent import principal_components
from codebase.system.errors import UserError
from codebase.system.files import write_atomically
from codebase.utils import gaussian_parameters

TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = 1_000  # test images in the page, the assignment's hundred first
MOST_PARAMETERS = 5_000_000  # a page of 28 MB


@torch.no_grad()
def write(model: VAE, images: Images, title: str, path: Path) -> None:
    """Write the page for a model and test images, with a title that is shown as it is.

    Raises:
        UserError: as `check`.
    """
    check(model)
    everything, rows = all_images(images), _shown_rows(images)
    x = torch.cat([subset_images(images), everything[rows][100:]]).to(device_of(model))
    networks = _layers(model, x)
    m, v = model.enc.encode(everything.to(x.device))
    content = {
        "title": title,
        "data": images.name,
        "encoder": [_packed(layer) for layer in networks[0]],
        "decoder": [_packed(layer) for layer in networks[1]],
        "prior": [model.z_prior_m.item(), model.z_prior_v.item()],
        "kl": kl_of_dimensions(model, m, v).tolist(),
        "reach": max(4, math.ceil(m.abs().max().item())),
        "plane": _plane(m.cpu(), model.enc.encode(x)[0].cpu()),
        "rows": rows.tolist(),
        "digits": images.test_labels[rows].tolist(),
        "pixels": _base64(images.test[rows].numpy()),
        "bits": _base64(np.packbits(x.cpu().numpy().astype(bool))),
    }
    write_atomically(path, _fill_in(TEMPLATE.read_text(encoding="utf-8"), content).encode())


@torch.no_grad()
def check(model: VAE) -> None:
    """Refuse a model that `write` will refuse, before it is trained.

    Raises:
        UserError: the page cannot compute the model's networks, or would be too large.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters > MOST_PARAMETERS:
        most = f"{parameters:,} parameters, and explorer.html can hold {MOST_PARAMETERS:,}"
        raise UserError(f"the model has {most}; choose smaller networks, or go without the page")
    _layers(model, torch.zeros(1, 784, device=device_of(model)))


def _shown_rows(images: Images) -> Tensor:
    """Row numbers of the page's images, the assignment's first and others evenly chosen."""
    subset = subset_rows(images.test_labels)
    others = torch.ones(len(images.test), dtype=torch.bool)
    others[subset] = False
    others = others.nonzero().squeeze(1)
    chosen = torch.linspace(0, len(others) - 1, SHOWN - len(subset)).long()
    return torch.cat([subset, others[chosen]])


def _layers(model: VAE, x: Tensor) -> list[Any]:
    """The layers of the model's encoder and decoder.

    What they compute from x must be all that the networks do; else this is a UserError.
    """
    networks: list[Any] = [next(network.children(), None) for network in (model.enc, model.dec)]
    if all(type(network) is nn.Sequential for network in networks) and all(
        type(layer) in (nn.Linear, nn.ELU) for network in networks for layer in network
    ):
        m, v = model.enc.encode(x)
        with suppress(RuntimeError, ValueError):  # shapes that do not fit
            ours = *gaussian_parameters(networks[0](x)), networks[1](m)
            if all(map(torch.allclose, ours, (m, v, model.dec.decode(m)))):
                return networks
    raise UserError(
        f"the networks of {type(model.enc).__module__} cannot be put into a page, because they are "
        "not just a sequence of linear layers and ELU each; choose others, or go without the page"
    )


def _packed(layer: Any) -> dict[str, object]:
    """A layer as the page reads it."""
    if isinstance(layer, nn.ELU):
        return {"alpha": layer.alpha}
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return {"weight": _floats(layer.weight), "bias": _floats(bias)}


def _plane(means: Tensor, shown: Tensor) -> dict[str, object]:
    """The plane of the map, by its origin and two directions, and where the images are in it.

    If z is above 2, the directions are the principal components of the `means` (n, z) of all test
    images. The page's images have the means `shown` (SHOWN, z).
    """
    z_dim = means.shape[1]
    origin, directions = torch.zeros(z_dim), torch.eye(2, z_dim)
    labels = ["z1", "z2" if z_dim > 1 else "nothing"]
    if z_dim > 2:
        directions, share = principal_components(means)
        origin, directions = means.mean(0), directions.T
        labels = [f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in range(2)]
    points = (shown - origin) @ directions.T
    return {
        "origin": _floats(origin),
        "directions": [_floats(direction) for direction in directions],
        "labels": labels,
        "points": _floats(points),
    }


def _floats(values: Tensor) -> str:
    return _base64(values.cpu().numpy().astype("<f4"))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _fill_in(template: str, content: dict[str, object]) -> str:
    """The page with its content, and with the hashes by which its policy knows script and style."""
    for element in ("script", "style"):
        text = template.split(f"<{element}>")[1].split(f"</{element}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        template = template.replace(f"{{{{{element}}}}}", f"'sha256-{digest}'")
    # Without a "<", nothing in the content can end the element that holds it.
    return template.replace("{{content}}", json.dumps(content).replace("<", "\\u003c"))
