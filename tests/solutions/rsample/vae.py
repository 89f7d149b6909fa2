import torch

from codebase import utils as ut
from codebase.models import nns


class VAE(torch.nn.Module):
    def __init__(self, nn="v1", name="vae", z_dim=2):
        super().__init__()
        self.name = name
        self.z_dim = z_dim
        nn = getattr(nns, nn)
        self.enc = nn.Encoder(self.z_dim)
        self.dec = nn.Decoder(self.z_dim)

        # Set prior as fixed parameters attached to the module
        self.z_prior_m = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.z_prior_v = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.z_prior = (self.z_prior_m, self.z_prior_v)

    def negative_elbo_bound(self, x):
        qm, qv = self.enc(x)
        kl = torch.mean(ut.kl_normal(qm, qv, *self.z_prior))
        rec = -torch.mean(ut.log_bernoulli_with_logits(x, self.dec(ut.sample_gaussian(qm, qv))))
        return kl + rec, kl, rec

    def negative_iwae_bound(self, x, iw):
        qm, qv = self.enc(x)
        kl = ut.kl_normal(qm, qv, *self.z_prior).mean()

        # (batch, dim) -> (iw * batch, dim)
        qm_iw, qv_iw, x_iw = ut.duplicate(qm, iw), ut.duplicate(qv, iw), ut.duplicate(x, iw)
        z = ut.sample_gaussian(qm_iw, qv_iw)
        log_p_x = ut.log_bernoulli_with_logits(x_iw, self.dec(z))
        log_ratio = log_p_x + ut.log_normal(z, *self.z_prior) - ut.log_normal(z, qm_iw, qv_iw)
        niwae = -ut.log_mean_exp(log_ratio.reshape(iw, -1), 0).mean()
        return niwae, kl, -log_p_x.mean()

    def loss(self, x):
        nelbo, kl, rec = self.negative_elbo_bound(x)
        return nelbo, {"train/loss": nelbo, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}

    def sample_sigmoid(self, batch):
        return self.compute_sigmoid_given(self.sample_z(batch))

    def compute_sigmoid_given(self, z):
        return torch.sigmoid(self.dec(z))

    def sample_z(self, batch):
        return ut.sample_gaussian(
            self.z_prior[0].expand(batch, self.z_dim), self.z_prior[1].expand(batch, self.z_dim)
        )

    def sample_x(self, batch):
        return self.sample_x_given(self.sample_z(batch))

    def sample_x_given(self, z):
        return torch.bernoulli(self.compute_sigmoid_given(z))
