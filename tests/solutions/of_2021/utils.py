import os
import random
import shutil

import numpy as np
import torch
from torch.nn import functional as F

from codebase.models.vae import VAE

bce = torch.nn.BCEWithLogitsLoss(reduction="none")


def sample_gaussian(m, v):
    """
    Element-wise application of the reparameterization trick to sample from a Gaussian

    Args:
        m: tensor: (batch, ...): Mean
        v: tensor: (batch, ...): Variance

    Return:
        z: tensor: (batch, ...): Samples
    """
    ### START CODE HERE ###
    epsilon = torch.normal(torch.zeros_like(m), torch.ones_like(m))
    z = m + torch.sqrt(v) * epsilon
    return z
    ### END CODE HERE ###


def log_normal(x, m, v):
    """
    Log probability under a Gaussian with diagonal covariance, one for each of the batch

    Args:
        x: tensor: (batch_1, ..., batch_k, dim): Observation
        m: tensor: (batch_1, ..., batch_k, dim): Mean
        v: tensor: (batch_1, ..., batch_k, dim): Variance
    """
    ### START CODE HERE ###
    dim = x.size(-1)
    exponent = ((x - m) ** 2 / (2 * v)).sum(-1)
    log_prob = -dim / 2 * np.log(2 * np.pi) - 0.5 * torch.log(v).sum(-1) - exponent
    return log_prob
    ### END CODE HERE ###


def gaussian_parameters(h, dim=-1):
    """
    Converts the output of a network to the mean and the variance of a Gaussian
    """
    m, h = torch.split(h, h.size(dim) // 2, dim=dim)
    v = F.softplus(h) + 1e-8
    return m, v


def log_bernoulli_with_logits(x, logits):
    """
    Log probability of a Bernoulli, given its logits
    """
    log_prob = -bce(input=logits, target=x).sum(-1)
    return log_prob


def kl_normal(qm, qv, pm, pv):
    """
    KL divergence between two Gaussians with diagonal covariance, summed over the last dimension
    """
    element_wise = 0.5 * (
        torch.log(pv) - torch.log(qv) + qv / pv + (qm - pm).pow(2).div(pv).sub(1.0)
    )
    return torch.sum(element_wise, -1)


def log_sum_exp(x, dim):
    """
    log(sum(exp(x), dim)) in a numerically stable manner
    """
    max_x, _ = x.max(dim, keepdim=True)
    return (x - max_x).exp().sum(dim).log() + max_x.squeeze(dim)


def log_mean_exp(x, dim):
    """
    log(mean(exp(x), dim)) in a numerically stable manner
    """
    return log_sum_exp(x, dim) - np.log(x.size(dim))


def duplicate(x, rep):
    """
    Duplicates x along its first dimension
    """
    return x.repeat(rep, *np.ones(x.dim() - 1, dtype=int))


def load_model_by_name(model, global_step, device=None):
    """
    Loads a model of this name and step from the folder of checkpoints
    """
    file_path = os.path.join("checkpoints", model.name, f"model-{global_step:05d}.pt")
    model.load_state_dict(torch.load(file_path, map_location=device))
    print(f"Loaded from {file_path}")


def prepare_writer(model_name, overwrite_existing=False):
    """
    Makes room for the logs of a new training
    """
    log_dir = os.path.join("logs", model_name)
    if overwrite_existing and os.path.exists(log_dir):
        shutil.rmtree(log_dir)
    os.makedirs(log_dir, exist_ok=True)
    return log_dir


def set_seed(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def is_vae(model):
    return isinstance(model, VAE)
