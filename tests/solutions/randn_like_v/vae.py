import torch
from torch import nn

from codebase import utils as ut
from codebase.models import nns


class VAE(nn.Module):
    def __init__(self, nn="v1", name="vae", z_dim=2):
        super().__init__()
        self.name = name
        self.z_dim = z_dim
        nn = getattr(nns, nn)
        self.enc = nn.Encoder(self.z_dim)
        self.dec = nn.Decoder(self.z_dim)
        self.z_prior_m = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.z_prior_v = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.z_prior = (self.z_prior_m, self.z_prior_v)

    def negative_elbo_bound(self, x):
        batch = x.shape[0]
        m, v = self.enc.encode(x)
        z = ut.sample_gaussian(m, v)
        logits = self.dec.decode(z)
        # the prior is (1,), so it has to be expanded to (batch, z_dim)
        pm = self.z_prior_m.expand(batch, self.z_dim)
        pv = self.z_prior_v.expand(batch, self.z_dim)
        kl = torch.mean(ut.kl_normal(m, v, pm, pv))
        rec = -torch.mean(ut.log_bernoulli_with_logits(x, logits))
        nelbo = rec + kl
        return nelbo, kl, rec

    def negative_iwae_bound(self, x, iw):
        batch = x.shape[0]
        m, v = self.enc.encode(x)
        pm = self.z_prior_m.expand(batch, self.z_dim)
        pv = self.z_prior_v.expand(batch, self.z_dim)
        kl = torch.mean(ut.kl_normal(m, v, pm, pv))

        x = ut.duplicate(x, iw)
        m = ut.duplicate(m, iw)
        v = ut.duplicate(v, iw)
        pm = ut.duplicate(pm, iw)
        pv = ut.duplicate(pv, iw)
        z = ut.sample_gaussian(m, v)
        logits = self.dec.decode(z)

        log_p_x_z = ut.log_bernoulli_with_logits(x, logits)
        log_weight = log_p_x_z + ut.log_normal(z, pm, pv) - ut.log_normal(z, m, v)
        log_weight = log_weight.reshape(iw, batch)
        niwae = -torch.mean(ut.log_mean_exp(log_weight, dim=0))
        rec = -torch.mean(log_p_x_z)
        return niwae, kl, rec

    def loss(self, x):
        nelbo, kl, rec = self.negative_elbo_bound(x)
        summaries = {"train/loss": nelbo, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}
        return nelbo, summaries

    def sample_sigmoid(self, batch):
        return self.compute_sigmoid_given(self.sample_z(batch))

    def compute_sigmoid_given(self, z):
        return torch.sigmoid(self.dec.decode(z))

    def sample_z(self, batch):
        pm = self.z_prior_m.expand(batch, self.z_dim)
        pv = self.z_prior_v.expand(batch, self.z_dim)
        return ut.sample_gaussian(pm, pv)

    def sample_x(self, batch):
        return self.sample_x_given(self.sample_z(batch))

    def sample_x_given(self, z):
        return torch.bernoulli(self.compute_sigmoid_given(z))
