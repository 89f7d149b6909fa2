import numpy as np
import torch
from torch.distributions.normal import Normal
from torch.nn import functional as F


def sample_gaussian(m, v):
    """Reparameterization trick: rsample draws eps ~ N(0, I) and returns m + sqrt(v) * eps"""
    z = Normal(m, v.sqrt()).rsample()
    return z


def log_normal(x, m, v):
    """log N(x | m, v), summed over the last dim"""
    element_wise = -0.5 * (torch.log(v) + (x - m) ** 2 / v + np.log(2 * np.pi))
    return element_wise.sum(-1)


def gaussian_parameters(h, dim=-1):
    """Splits the output of the network in mean and variance"""
    m, h = torch.split(h, h.size(dim) // 2, dim=dim)
    v = F.softplus(h) + 1e-8
    return m, v


def log_bernoulli_with_logits(x, logits):
    """log p(x) of a Bernoulli with these logits, summed over the last dim"""
    bce = torch.nn.BCEWithLogitsLoss(reduction="none")
    return -bce(input=logits, target=x).sum(-1)


def kl_normal(qm, qv, pm, pv):
    """KL(q || p) of two diagonal Gaussians, summed over the last dim"""
    element_wise = 0.5 * (torch.log(pv) - torch.log(qv) + qv / pv + (qm - pm).pow(2) / pv - 1)
    return element_wise.sum(-1)


def duplicate(x, rep):
    """(batch, ...) -> (rep * batch, ...)"""
    return x.expand(rep, *x.shape).reshape(-1, *x.shape[1:])


def log_mean_exp(x, dim):
    """log 1/k sum_k exp(x_k)"""
    return log_sum_exp(x, dim) - np.log(x.size(dim))


def log_sum_exp(x, dim=0):
    """log sum_k exp(x_k) without overflow"""
    max_x = torch.max(x, dim)[0]
    new_x = x - max_x.unsqueeze(dim).expand_as(x)
    return max_x + (new_x.exp().sum(dim)).log()
