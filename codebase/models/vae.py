"""The variational autoencoder: Gaussian latent, Bernoulli likelihood, and bounds on log p(x)."""

import torch
from torch import Tensor, nn

from codebase import utils
from codebase.models import nns


class VAE(nn.Module):
    """p(z) = N(0, I), p(x | z) = Bernoulli(decoder(z)), q(z | x) = N(encoder(x)).

    Args:
        nn: name of the networks, a module of `codebase.models.nns`.
        name: what the model is called in files and pictures.
        z_dim: number of latent dimensions.

    Raises:
        AttributeError: there are no networks of that name.

    Source: Kingma and Welling 2014, Auto-Encoding Variational Bayes, arXiv:1312.6114.
    """

    def __init__(self, nn: str = "v1", name: str = "vae", z_dim: int = 2):
        super().__init__()
        networks = getattr(nns, nn)
        self.name = name
        self.z_dim = z_dim
        self.enc = networks.Encoder(z_dim)
        self.dec = networks.Decoder(z_dim)
        # Parameters that do not train, because the shared checkpoint format holds them.
        self.z_prior_m = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
        self.z_prior_v = torch.nn.Parameter(torch.ones(1), requires_grad=False)

    @property
    def z_prior(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the prior, each (1,)."""
        return self.z_prior_m, self.z_prior_v

    def _prior_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the prior in the shape of z."""
        return self.z_prior_m.expand_as(z), self.z_prior_v.expand_as(z)

    def negative_elbo_bound(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Negative evidence lower bound on log p(x), with one latent sample per image.

        Args:
            x: (batch, 784) pixels, 0 or 1.

        Returns:
            nelbo, kl, rec: scalars in nats per image, nelbo = kl + rec, where kl is
            KL(q(z | x) || p(z)) and rec is -log p(x | z), each averaged over the batch.

        Source: Kingma and Welling 2014, equation 10.
        """
        m, v = self.enc.encode(x)
        z = utils.sample_gaussian(m, v)
        kl = utils.kl_normal(m, v, *self._prior_of(m)).mean()
        rec = -utils.log_bernoulli_with_logits(x, self.dec.decode(z)).mean()
        return kl + rec, kl, rec

    def negative_iwae_bound(self, x: Tensor, iw: int) -> tuple[Tensor, Tensor, Tensor]:
        """Negative importance-weighted bound on log p(x), which tightens as `iw` grows.

        Args:
            x: (batch, 784) pixels, 0 or 1.
            iw: number of latent samples per image, at least 1.

        Returns:
            niwae, kl, rec: scalars in nats per image; kl and rec as in `negative_elbo_bound`, rec
            averaged over the samples. With iw = 1 the expectation of niwae is the negative ELBO.

        Source: Burda, Grosse and Salakhutdinov 2016, equation 8.
        """
        m, v = self.enc.encode(x)
        kl = utils.kl_normal(m, v, *self._prior_of(m)).mean()
        x, m, v = (utils.duplicate(each, iw) for each in (x, m, v))
        z = utils.sample_gaussian(m, v)
        log_px = utils.log_bernoulli_with_logits(x, self.dec.decode(z))
        log_w = log_px + utils.log_normal(z, *self._prior_of(z)) - utils.log_normal(z, m, v)
        niwae = -utils.log_mean_exp(log_w.view(iw, -1), 0).mean()
        return niwae, kl, -log_px.mean()

    def loss(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative ELBO, which training minimizes, and its parts by the names to log.

        Args:
            x: (batch, 784) pixels, 0 or 1.

        Returns:
            loss, summaries: a scalar in nats per image and the scalars "train/loss", "gen/elbo",
            "gen/kl_z" and "gen/rec".
        """
        nelbo, kl, rec = self.negative_elbo_bound(x)
        loss = nelbo
        return loss, {"train/loss": loss, "gen/elbo": -nelbo, "gen/kl_z": kl, "gen/rec": rec}

    def sample_z(self, batch: int) -> Tensor:
        """Sample (batch, z_dim) latents from the prior."""
        return utils.sample_gaussian(*(p.expand(batch, self.z_dim) for p in self.z_prior))

    def sample_x(self, batch: int) -> Tensor:
        """Sample (batch, 784) images, zeros and ones, from the model."""
        return self.sample_x_given(self.sample_z(batch))

    def sample_x_given(self, z: Tensor) -> Tensor:
        """Sample (batch, 784) images, zeros and ones, from p(x | z), for z of (batch, z_dim)."""
        return torch.bernoulli(self.compute_sigmoid_given(z))

    def sample_sigmoid(self, batch: int) -> Tensor:
        """Pixel probabilities (batch, 784) at latents sampled from the prior."""
        return self.compute_sigmoid_given(self.sample_z(batch))

    def compute_sigmoid_given(self, z: Tensor) -> Tensor:
        """Pixel probabilities (batch, 784) of p(x | z), for z of (batch, z_dim)."""
        return torch.sigmoid(self.dec.decode(z))
