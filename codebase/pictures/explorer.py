"""An HTML page that explores a model's latent space: a single file that contains the model.

explorer.html beside this file computes and shows everything; this module fills in its data.
"""

import base64
import json
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from codebase.data import Images
from codebase.evaluate import device_of, kl_of_dimensions
from codebase.models.vae import VAE
from codebase.pictures.drawing import COLOURS
from codebase.pictures.latent import principal_components
from codebase.settings import dataset_title
from codebase.system.errors import UserError
from codebase.system.files import write_atomically
from codebase.utils import gaussian_parameters

TEMPLATE = Path(__file__).with_suffix(".html")
SHOWN = 1_000  # test images in the page; the first 100 are the subset
MOST = 2**15 - 1  # the largest whole number of 16 bits


@torch.no_grad()
def write(model: VAE, images: Images, title: str, path: Path) -> None:
    """Write the page for a model and test images, or raise UserError as `_layers` does."""
    # The page shows the subset, and other test images at equal distances in the data set.
    everything = {*range(len(images.test))}
    rest = sorted(everything - {*images.subset_indices.tolist()})
    others = torch.tensor(rest or sorted(everything))
    chosen = others[torch.linspace(0, len(others) - 1, SHOWN - len(images.subset_indices)).long()]
    indices = torch.cat([images.subset_indices, chosen])
    device = device_of(model)
    x = torch.cat([images.subset_bits, images.test_bits[chosen]]).to(device)
    encoder, decoder = _layers(model, x)
    m, _ = model.enc.encode(x)
    all_m, _ = model.enc.encode(images.test_bits.to(device))
    pixels = images.test[indices]
    content = {
        "title": title,
        "dataset": dataset_title(images.name),
        "encoder": [_parameters(layer) for layer in encoder],
        "decoder": [_parameters(layer) for layer in decoder],
        "prior": [model.z_prior_m.item(), model.z_prior_v.item()],
        "kl": kl_of_dimensions(model, images.test_bits).tolist(),
        "limit": max(4, math.ceil(all_m.abs().max().item())),
        "plane": _plane(m, all_m),
        "indices": indices.tolist(),
        "labels": images.test_labels[indices].tolist() if len(images.test_labels) else [],
        "colours": COLOURS,
        # Most pixels are 0, and only their places are in the page.
        "inked": _bits(pixels > 0),
        "pixels": _base64(pixels[pixels > 0]),
        "bits": _bits(x > 0),
    }
    # Without a "<", no text in the content can end the element that holds it.
    text = json.dumps(content).replace("<", "\\u003c")
    page = TEMPLATE.read_text(encoding="utf-8").replace("{{content}}", text)
    write_atomically(path, page.encode())


def _layers(model: VAE, x: Tensor) -> tuple[nn.Sequential, nn.Sequential]:
    """Return the layers of the encoder and those of the decoder.

    Raises UserError if they are more than linear layers and ELUs in sequence, judged by what they
    compute from x (n, 784).
    """
    encoder, decoder = (
        nn.Sequential(*(module for module in network.modules() if not [*module.children()]))
        for network in (model.enc, model.dec)
    )
    m, v = model.enc.encode(x)
    expected = m, v, model.dec.decode(m)
    if all(type(layer) in (nn.Linear, nn.ELU) for layer in [*encoder, *decoder]):
        with suppress(RuntimeError, ValueError):  # The shapes may not fit.
            computed = *gaussian_parameters(encoder(x)), decoder(m)
            if all(map(torch.allclose, computed, expected)):
                return encoder, decoder
    raise UserError(
        f"the networks of {type(model.enc).__module__} are not just linear layers and ELUs in "
        "sequence, so explorer.html cannot hold them; choose others, or go without the page"
    )


def _parameters(layer: nn.Module) -> dict[str, object]:
    """The parameters of a linear layer or an ELU, in the form that the page reads.

    Weights are whole numbers of 16 bits times a step, which halves the page and changes the bounds
    by less than 0.01 nats.
    """
    if not isinstance(layer, nn.Linear):
        return {"alpha": layer.alpha}
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    step = (layer.weight.abs().max() / MOST).clamp(min=1e-30)
    weight = (layer.weight / step).round().short()
    return {"step": step.item(), "weight": _base64(weight), "bias": _base64(bias)}


def _plane(m: Tensor, all_m: Tensor) -> dict[str, object]:
    """The plane of the map: origin, two directions, and the positions of the means m (SHOWN, z).

    With more than two dimensions, the directions are the principal components of all_m (n, z).
    """
    z_dim = m.shape[1]
    origin = m.new_zeros(z_dim)
    directions = torch.eye(2, z_dim).to(m)
    labels = ["z1", "z2" if z_dim == 2 else "nothing"]
    if z_dim > 2:
        origin = all_m.mean(0)
        components, share = principal_components(all_m)
        directions = components.T
        labels = [f"principal component {i + 1} ({share[i]:.0%} of variance)" for i in range(2)]
    return {
        "origin": _base64(origin),
        "directions": [_base64(direction) for direction in directions],
        "labels": labels,
        "points": _base64((m - origin) @ directions.T),
    }


def _bits(values: Tensor) -> str:
    """Booleans, eight to a byte."""
    return base64.b64encode(np.packbits(values.cpu().numpy()).tobytes()).decode()


def _base64(values: Tensor) -> str:
    return base64.b64encode(values.cpu().numpy().tobytes()).decode()
