import math

import torch
import torch.nn.functional as F

from codebase.models.vae import VAE


def sample_gaussian(m, v):
    eps = torch.randn_like(v)
    std = torch.sqrt(v)
    return m + std * eps


def log_normal(x, m, v):
    # x, m, v: (batch, dim)
    dim = x.shape[1]
    const = -0.5 * dim * math.log(2 * math.pi)
    log_det = -0.5 * torch.log(v).sum(dim=1)
    quadratic = -0.5 * ((x - m) ** 2 / v).sum(dim=1)
    return const + log_det + quadratic


def gaussian_parameters(h, dim=-1):
    m, h = torch.split(h, h.size(dim) // 2, dim=dim)
    v = F.softplus(h) + 1e-8
    return m, v


def log_bernoulli_with_logits(x, logits):
    # binary_cross_entropy_with_logits is -log p(x), one value for each pixel
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)


def kl_normal(qm, qv, pm, pv):
    # all of them (batch, dim)
    dim = qm.shape[1]
    trace = (qv / pv).sum(dim=1)
    mahalanobis = ((pm - qm) * (pm - qm) / pv).sum(dim=1)
    log_det = torch.log(pv).sum(dim=1) - torch.log(qv).sum(dim=1)
    return 0.5 * (log_det + trace + mahalanobis - dim)


def log_mean_exp(x, dim):
    return torch.logsumexp(x, dim=dim) - math.log(x.shape[dim])


def duplicate(x, rep):
    return x.unsqueeze(0).expand(rep, *x.shape).reshape(rep * x.shape[0], *x.shape[1:])


def is_vae(model):
    return isinstance(model, VAE)
