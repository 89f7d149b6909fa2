"""Training: the step, its randomness, and what a run returns. runs/ has what it saves."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from reading import NoReading
from torch.distributions import Bernoulli, Normal, kl_divergence
from training import CPU, IMAGES, TINY, change_loss, same_parameters

from codebase import evaluate
from codebase.compute.processes import Processes
from codebase.datasets.loading import load
from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.system import seeds
from codebase.system.errors import UserError
from codebase.train import Training, load_trained, new_model, train

pytestmark = pytest.mark.usefixtures("place")
BATCH = IMAGES.train[:10]


def from_the_papers(settings, images, rates, weight):
    """The parameters of the tiny networks after one step with each of the rates, in float64.

    The loss is equation 10 of Kingma and Welling 2014, by torch.distributions. A step is algorithm
    1 of Kingma and Ba 2015. Each step's random numbers come from a generator of its own.
    """
    z, run, size = settings.z, settings.run, settings.batch_size
    with seeds.seeded(seeds.seed_for(run, seeds.WEIGHTS), CPU):
        layers = torch.nn.Linear(784, 2 * z), torch.nn.Linear(z, 784)
    theta = [p.detach().double() for layer in layers for p in (layer.weight, layer.bias)]
    m, v = [np.zeros(p.shape) for p in theta], [np.zeros(p.shape) for p in theta]
    for t, rate in enumerate(rates, start=1):
        epoch, batch = divmod(t - 1, len(images.train) // size)
        order = torch.Generator().manual_seed(seeds.seed_for(run, seeds.ORDER, epoch))
        indices = torch.randperm(len(images.train), generator=order)[batch * size :][:size]
        generator = torch.Generator().manual_seed(seeds.seed_for(run, seeds.STEP, t - 1))
        level = torch.empty(size, 784, dtype=torch.uint8).random_(0, 255, generator=generator)
        x = (level < images.train[indices]).double()
        noise = torch.randn(size, z, generator=generator).double()

        we, be, wd, bd = (p.requires_grad_() for p in theta)
        mean, h = (x @ we.T + be).chunk(2, 1)
        std = (torch.log1p(h.exp()) + 1e-8).sqrt()
        logits = (mean + std * noise) @ wd.T + bd
        kl = kl_divergence(Normal(mean, std), Normal(0, 1)).sum(1).mean()
        rec = -Bernoulli(logits=logits).log_prob(x).sum(1).mean()
        loss = weight * (kl + rec) + (settings.kl_weight - 1) * kl
        for i, g in enumerate(torch.autograd.grad(loss, theta)):
            g = g.numpy()
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            update = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            theta[i] = theta[i].detach() - rate * torch.from_numpy(update)
    return theta


@pytest.mark.parametrize(("run", "schedule"), [(0, "constant"), (3, "linear")])
# The second weight makes gradients about as small as Adam's epsilon.
@pytest.mark.parametrize(("weight", "kl_weight"), [(1, 1.0), (1e-9, 1.0), (1, 4.0)])
def test_a_run_is_adam_on_its_loss(monkeypatch, run, schedule, weight, kl_weight):
    rates = [0.02] * 5 if schedule == "constant" else [0.0002, 0.0004, 0.0006, 0.0008, 0.001]
    images = replace(IMAGES, train=IMAGES.train[:25])  # two batches per epoch, and a rest
    change_loss(monkeypatch, lambda loss, _: weight * loss)
    settings = TINY._replace(run=run, lr=0.02, lr_schedule=schedule, kl_weight=kl_weight)
    settings = settings._replace(iter_max=5)
    trained = [p for p in train(settings, images, CPU)[0].parameters() if p.requires_grad]
    for ours, theirs in zip(trained, from_the_papers(settings, images, rates, weight), strict=True):
        assert (ours - theirs).abs().max() < 2e-6  # a few roundings of float32


@pytest.mark.parametrize("detach", [torch.Tensor.detach, torch.Tensor.item])
def test_a_kl_without_a_gradient_cannot_be_weighted(monkeypatch, detach):
    plain = VAE.loss

    def loss(model, x):
        loss, summaries = plain(model, x)
        return loss, {name: detach(value) for name, value in summaries.items()}

    monkeypatch.setattr(VAE, "loss", loss)
    with pytest.raises(UserError, match=r"--kl_weight: .*gen/kl_z"):
        Training(TINY._replace(kl_weight=4.0), CPU).take_step(BATCH)


def test_a_step_returns_the_loss_and_the_unweighted_bounds_before_it(monkeypatch):
    """All parameters are 0, so the latent's variance is softplus(0), and pixels have p = 1/2."""
    training = Training(TINY._replace(kl_weight=3.0), CPU)
    for p in (*training.model.enc.parameters(), *training.model.dec.parameters()):
        torch.nn.init.zeros_(p)
    variance = np.log(2)
    kl, rec = 0.5 * TINY.z * (variance - 1 - np.log(variance)), 784 * np.log(2)
    change_loss(monkeypatch, lambda loss, kl: loss + 4 * kl)
    losses = training.take_step(BATCH)
    assert losses.tolist() == pytest.approx([rec + 7 * kl, kl + rec, kl, rec], rel=1e-5)
    assert training.step == 1 and not losses.requires_grad
    assert training.take_step(BATCH)[3] < rec - 0.001


def test_a_training_step_reads_no_tensor():
    training = Training(TINY, CPU)
    training.take_step(BATCH)
    with NoReading():
        training.take_step(BATCH)


def test_each_process_has_noise_of_its_own_and_the_weights_of_the_first():
    class Pretended(Processes):
        def broadcast(self, value):
            return {name: x + 1 for name, x in value.items()} if self.rank else value

        def all_reduce_mean(self, tensors):
            pass

    for step, rank in ((0, 1), (1, 0), (1, 1)):
        training = Training(TINY, CPU, Pretended(rank, 2))
        assert torch.equal(training.model.dec.net.bias, new_model(TINY).dec.net.bias + rank)
        training.step = step
        training.take_step(BATCH)
        assert torch.initial_seed() == seeds.seed_for(TINY.run, seeds.STEP, 2 * step + rank)


def test_training_returns_the_model_and_its_bounds_and_leaves_the_global_random_state():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    settings = TINY._replace(batch_size=len(IMAGES.train))  # the largest that is possible
    model, measured = train(settings, IMAGES, "cpu")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert same_parameters(model, load_trained(settings, "cpu"))
    assert measured == evaluate.measure(model, IMAGES)


@pytest.mark.slow
def test_five_hundred_steps_on_mnist_end_below_135(mnist_dir):
    _, measured = train(Settings(iter_max=500), load("mnist", mnist_dir), CPU)
    assert measured.all.nelbo < 135  # 129 is usual, and 145 at half the learning rate.
