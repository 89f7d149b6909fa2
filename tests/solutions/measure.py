"""Measure the model of z = 10 in model.pt on x.pt, by the project's VAE and utils."""

import torch

from codebase import evaluate
from codebase.models.vae import VAE

model, x, latents = VAE(z_dim=10), torch.load("x.pt"), []
model.load_state_dict(torch.load("model.pt"))
measured = {
    "bounds": evaluate.bounds(model, x, 100),
    "kl of dimensions": evaluate.kl_of_dimensions(model, x),
}
if hasattr(model, "negative_iwae_bound"):
    measured["iwae"] = {iw: evaluate.negative_iwae(model, x, iw) for iw in (1, 50)}


def record(z):
    """Decode z, and record it."""
    latents.append(z)
    return model.dec.net(z)


torch.manual_seed(0)
model.dec.decode = model.dec.forward = record
measured["sampled"] = [model.sample_z(200), model.sample_x(200), model.sample_sigmoid(200)]
measured["sampled at"] = latents
torch.save(measured, "measured.pt")
