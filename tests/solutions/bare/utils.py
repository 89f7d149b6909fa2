import torch
from torch.nn import functional as F


def sample_gaussian(m, v):
    return m + torch.sqrt(v) * torch.randn(m.shape, device=m.device)


def gaussian_parameters(h, dim=-1):
    m, h = torch.split(h, h.size(dim) // 2, dim=dim)
    return m, F.softplus(h) + 1e-8


def log_bernoulli_with_logits(x, logits):
    return torch.sum(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits), dim=-1)


def kl_normal(qm, qv, pm, pv):
    return torch.sum(0.5 * (torch.log(pv / qv) + (qv + (qm - pm) ** 2) / pv - 1), dim=-1)


def duplicate(x, rep):
    return torch.cat([x] * rep)
