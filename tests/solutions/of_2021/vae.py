import torch
from torch import nn

from codebase import utils as ut
from codebase.models import nns


class VAE(nn.Module):
    def __init__(self, nn="v1", name="vae", z_dim=2):
        super().__init__()
        self.name = name
        self.z_dim = z_dim
        # Small note: unfortunate name clash with torch.nn
        nn = getattr(nns, nn)
        self.enc = nn.Encoder(self.z_dim)
        self.dec = nn.Decoder(self.z_dim)

        # Set prior as fixed parameters attached to the module
        self.z_prior_m = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.z_prior_v = torch.nn.Parameter(torch.ones(1), requires_grad=False)
        self.z_prior = (self.z_prior_m, self.z_prior_v)

    def negative_elbo_bound(self, x):
        """
        Computes the evidence lower bound, its KL and its reconstruction term

        Args:
            x: tensor: (batch, dim): Observations

        Returns:
            nelbo, kl, rec: tensors: (): scalars
        """
        ### START CODE HERE ###
        q_m, q_v = self.enc(x)
        z_given_x = ut.sample_gaussian(q_m, q_v)
        decoded_logits = self.dec(z_given_x)

        p_m = torch.zeros_like(q_m)
        p_v = torch.ones_like(q_v)
        kls = ut.kl_normal(q_m, q_v, p_m, p_v)
        recs = ut.log_bernoulli_with_logits(x, decoded_logits)
        kl = torch.mean(kls)
        rec = -torch.mean(recs)
        nelbo = -torch.mean(recs - kls)
        return nelbo, kl, rec
        ### END CODE HERE ###

    def negative_iwae_bound(self, x, iw):
        """
        Computes the importance weighted bound with iw samples

        Returns:
            niwae, kl, rec: tensors: (): scalars
        """
        ### START CODE HERE ###
        batch_size = x.shape[0]
        m, v = self.enc(x)
        multi_x = ut.duplicate(x, iw)
        multi_m = ut.duplicate(m, iw)
        multi_v = ut.duplicate(v, iw)
        multi_z = ut.sample_gaussian(multi_m, multi_v)

        recs = ut.log_bernoulli_with_logits(multi_x, self.dec(multi_z))
        p_z = ut.log_normal(multi_z, torch.zeros_like(multi_m), torch.ones_like(multi_v))
        q_z = ut.log_normal(multi_z, multi_m, multi_v)

        ratios = torch.stack(torch.split(recs + p_z - q_z, batch_size))
        niwae = -torch.mean(ut.log_mean_exp(ratios, 0))
        kl = torch.mean(ut.kl_normal(m, v, torch.zeros_like(m), torch.ones_like(v)))
        rec = -torch.mean(recs)
        return niwae, kl, rec
        ### END CODE HERE ###

    def loss(self, x):
        nelbo, kl, rec = self.negative_elbo_bound(x)
        loss = nelbo

        summaries = {
            "train/loss": nelbo,
            "gen/elbo": -nelbo,
            "gen/kl_z": kl,
            "gen/rec": rec,
        }

        return loss, summaries

    def sample_sigmoid(self, batch):
        z = self.sample_z(batch)
        return self.compute_sigmoid_given(z)

    def compute_sigmoid_given(self, z):
        logits = self.dec(z)
        return torch.sigmoid(logits)

    def sample_z(self, batch):
        return ut.sample_gaussian(
            self.z_prior[0].expand(batch, self.z_dim), self.z_prior[1].expand(batch, self.z_dim)
        )

    def sample_x(self, batch):
        z = self.sample_z(batch)
        return self.sample_x_given(z)

    def sample_x_given(self, z):
        return torch.bernoulli(self.compute_sigmoid_given(z))
