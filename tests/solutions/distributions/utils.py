import math

from torch.distributions import Bernoulli, Independent, Normal, kl_divergence
from torch.nn.functional import softplus


def diagonal(mean, variance):
    return Independent(Normal(mean, variance.sqrt()), 1)


def sample_gaussian(m, v):
    return diagonal(m, v).rsample()


def log_normal(x, m, v):
    return diagonal(m, v).log_prob(x)


def gaussian_parameters(h, dim=-1):
    mean, pre_variance = h.chunk(2, dim)
    return mean, softplus(pre_variance) + 1e-8


def log_bernoulli_with_logits(x, logits):
    return Independent(Bernoulli(logits=logits), 1).log_prob(x)


def kl_normal(qm, qv, pm, pv):
    return kl_divergence(diagonal(qm, qv), diagonal(pm, pv))


def log_mean_exp(x, dim):
    return x.logsumexp(dim) - math.log(x.shape[dim])


def duplicate(x, rep):
    return x.repeat((rep,) + (1,) * (x.dim() - 1))
