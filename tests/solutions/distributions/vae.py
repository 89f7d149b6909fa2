import math

import torch
import torch.distributions as D
from torch import nn

from codebase.models import nns


class VAE(nn.Module):
    def __init__(self, nn="v1", name="vae", z_dim=2):
        super().__init__()
        self.name, self.z_dim = name, z_dim
        architecture = getattr(nns, nn)
        self.enc = architecture.Encoder(z_dim)
        self.dec = architecture.Decoder(z_dim)
        self.z_prior_m = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.z_prior_v = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.z_prior = (self.z_prior_m, self.z_prior_v)
        self.last_kl = None

    def gaussian(self, mean, variance):
        return D.Independent(D.Normal(mean, variance.sqrt()), 1)

    def prior(self):
        return self.gaussian(*(p.expand(self.z_dim) for p in self.z_prior))

    def posterior(self, x):
        return self.gaussian(*self.enc.encode(x))

    def likelihood(self, z):
        return D.Independent(D.Bernoulli(logits=self.dec.decode(z)), 1)

    def negative_elbo_bound(self, x):
        q = self.posterior(x)
        kl = D.kl_divergence(q, self.prior().expand(q.batch_shape)).mean()
        rec = -self.likelihood(q.rsample()).log_prob(x).mean()
        self.last_kl = kl.detach()
        return kl + rec, kl, rec

    def negative_iwae_bound(self, x, iw):
        q = self.posterior(x)
        p = self.prior().expand(q.batch_shape)
        z = q.rsample((iw,))  # (iw, batch, z_dim)
        log_px = self.likelihood(z).log_prob(x)
        log_w = log_px + p.log_prob(z) - q.log_prob(z)
        niwae = math.log(iw) - log_w.logsumexp(0).mean()
        return niwae, D.kl_divergence(q, p).mean(), -log_px.mean()

    def loss(self, x):
        nelbo, kl, rec = self.negative_elbo_bound(x)
        return nelbo, {"train/loss": nelbo, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}

    def sample_z(self, batch):
        return self.prior().sample((batch,))

    def sample_x(self, batch):
        return self.sample_x_given(self.sample_z(batch))

    def sample_x_given(self, z):
        return self.likelihood(z).sample()

    def sample_sigmoid(self, batch):
        return self.compute_sigmoid_given(self.sample_z(batch))

    def compute_sigmoid_given(self, z):
        return self.likelihood(z).mean
