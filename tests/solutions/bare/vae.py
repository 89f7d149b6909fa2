import torch

from codebase.models import nns
from codebase.utils import kl_normal, log_bernoulli_with_logits, sample_gaussian


class VAE(torch.nn.Module):
    def __init__(self, nn="v1", name="vae", z_dim=2):
        super().__init__()
        self.name = name
        self.z_dim = z_dim
        nn = getattr(nns, nn)
        self.enc = nn.Encoder(z_dim)
        self.dec = nn.Decoder(z_dim)
        self.z_prior_m = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.z_prior_v = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.z_prior = (self.z_prior_m, self.z_prior_v)

    def negative_elbo_bound(self, x):
        m, v = self.enc.encode(x)
        logits = self.dec.decode(sample_gaussian(m, v))
        kl = kl_normal(m, v, self.z_prior_m, self.z_prior_v).mean()
        rec = -log_bernoulli_with_logits(x, logits).mean()
        return kl + rec, kl, rec

    def loss(self, x):
        nelbo, kl, rec = self.negative_elbo_bound(x)
        return nelbo, {"train/loss": nelbo, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}

    def sample_z(self, batch):
        m, v = self.z_prior
        return sample_gaussian(m.expand(batch, self.z_dim), v.expand(batch, self.z_dim))

    def sample_x(self, batch):
        return self.sample_x_given(self.sample_z(batch))

    def sample_x_given(self, z):
        return torch.bernoulli(self.compute_sigmoid_given(z))

    def sample_sigmoid(self, batch):
        return self.compute_sigmoid_given(self.sample_z(batch))

    def compute_sigmoid_given(self, z):
        return torch.sigmoid(self.dec.decode(z))
