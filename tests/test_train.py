"""A training run: its step, the order of its images, its files, and what it survives."""

import csv
import random
import shutil
import signal
import sys
import time
from collections import Counter
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from codebase.errors import BusyError, CheckpointError, DataError, DivergenceError, Interrupted
from torch.distributions import Bernoulli, Normal, kl_divergence
from torch.optim.optimizer import register_optimizer_step_post_hook

from codebase import checkpoint, data, evaluate, seeds, synthetic
from codebase.models import nns
from codebase.models.vae import VAE
from codebase.settings import Settings
from codebase.train import Training, load_trained, new_model, train
from codebase.utils import gaussian_parameters

CPU = torch.device("cpu")
NETWORKS = str(Path(__file__).parent / "networks")
TINY = Settings(nn="tiny", z=2, batch_size=10, dataset="synthetic", iter_max=30)
FOLDER = checkpoint.run_folder(TINY)
STATE = checkpoint.state_path(FOLDER)
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
pytestmark = pytest.mark.usefixtures("stray")  # whatever signals the shell ignores


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    """An empty folder to train in, and small networks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])


@pytest.fixture(scope="module")
def images():
    """A few synthetic digits: 20 batches of ten and an incomplete one, and 60 to test on."""
    generator = torch.Generator().manual_seed(0)
    drawn = [synthetic.draw_digits(counts, generator) for counts in ([21] * 9 + [16], [6] * 10)]
    return data.Images("synthetic", *drawn[0], *drawn[1])


@pytest.fixture
def after_step():
    """Have a function called with the number of steps after each one, and with the optimizer."""
    handles = []

    def register(function):
        steps = count(1)
        handles.append(
            register_optimizer_step_post_hook(lambda adam, *_: function(next(steps), adam))
        )

    yield register
    for handle in handles:
        handle.remove()


@pytest.fixture
def clock(monkeypatch, after_step):
    """A clock on which a training step takes a second, beside a wall clock that is set back."""
    clock = SimpleNamespace(now=1000.0, step=1.0)
    wall = count(2e9, -3600)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "time", lambda: next(wall))

    def tick(*_):
        clock.now += clock.step

    after_step(tick)
    return clock


@pytest.fixture
def interrupted(images):
    """Train until a signal comes, which is sent once a number of steps have been taken."""

    def run(settings, after, number=signal.SIGTERM, **options):
        steps = count(1)
        handle = register_optimizer_step_post_hook(
            lambda *_: signal.raise_signal(number) if next(steps) == after else None
        )
        try:
            with pytest.raises(Interrupted) as stop:
                train(settings, images, CPU, **options)
        finally:
            handle.remove()
        return stop.value

    return run


@pytest.fixture
def change_loss(monkeypatch):
    """Have the model minimize something else, as a student does who edits `VAE.loss`."""
    plain = VAE.loss

    def change(to):
        def loss(model, x):
            loss, summaries = plain(model, x)
            return to(loss, summaries["gen/kl_z"]), summaries

        monkeypatch.setattr(VAE, "loss", loss)

    return change


def files_in(folder):
    """Path and content of all files in a folder."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def results_in(folder):
    """The models and the metrics: all that a run leaves but for its state, which has the time."""
    return {name: x for name, x in files_in(folder).items() if name != "training-state.pt"}


def metrics_in(folder, *kinds):
    """The rows of metrics.csv on some images: step, and NELBO, KL and REC."""
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        int(row["step"]): tuple(float(row[name]) for name in ("NELBO", "KL", "REC"))
        for row in rows
        if row["images"] in kinds
    }


def same_parameters(a, b):
    return all(torch.equal(*pair) for pair in zip(a.parameters(), b.parameters(), strict=True))


# The step.


def from_the_papers(settings, images, rates, weight=1.0):
    """The parameters of the tiny networks after a step with each rate, in float64.

    The loss is that of Kingma and Welling 2014, equation 10, by torch.distributions; the steps are
    those of Kingma and Ba 2015, algorithm 1; and each kind of randomness has a source of its own.
    """
    z, run, size = settings.z, settings.run, settings.batch_size
    with seeds.seeded(seeds.seed_for(run, seeds.WEIGHTS), CPU):
        layers = torch.nn.Linear(784, 2 * z), torch.nn.Linear(z, 784)
    theta = [p.detach().double() for layer in layers for p in (layer.weight, layer.bias)]
    pixels, latent = (
        torch.Generator().manual_seed(seeds.seed_for(run, purpose))
        for purpose in (seeds.PIXELS, seeds.NOISE)
    )
    m, v = [np.zeros(p.shape) for p in theta], [np.zeros(p.shape) for p in theta]
    for t, rate in enumerate(rates, start=1):
        epoch, batch = divmod(t - 1, len(images.train) // size)
        source = torch.Generator().manual_seed(seeds.seed_for(run, seeds.ORDER, epoch))
        rows = torch.randperm(len(images.train), generator=source)[batch * size :][:size]
        x = data.binarize(images.train[rows], pixels).double()
        noise = torch.randn(size, z, generator=latent).double()

        we, be, wd, bd = (p.requires_grad_() for p in theta)
        mean, h = (x @ we.T + be).chunk(2, 1)
        std = (torch.log1p(h.exp()) + 1e-8).sqrt()
        logits = (mean + std * noise) @ wd.T + bd
        kl = kl_divergence(Normal(mean, std), Normal(0, 1)).sum(1).mean()
        loss = weight * (kl - Bernoulli(logits=logits).log_prob(x).sum(1).mean())
        for i, g in enumerate(torch.autograd.grad(loss, theta)):
            g = g.numpy()
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            moved = m[i] / (1 - 0.9**t) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
            theta[i] = theta[i].detach() - rate * torch.from_numpy(moved)
    return theta


@pytest.mark.parametrize("run", [0, 3])
@pytest.mark.parametrize(
    ("schedule", "rates", "weight"),
    [
        ("constant", [0.02] * 5, 1),
        ("constant", [0.02] * 5, 1e-9),  # the gradients are about as small as Adam's constant
        ("linear", [0.0002, 0.0004, 0.0006, 0.0008, 0.001], 1),
    ],
)
def test_a_run_is_adam_on_its_loss_with_four_sources_of_randomness(
    images, change_loss, run, schedule, rates, weight
):
    images = images._replace(train=images.train[:25])  # epochs of two batches, and five images left
    change_loss(lambda loss, _: weight * loss)
    torch.randn(7)  # the global source as it was before has no part in it
    settings = TINY._replace(run=run, lr=0.02, lr_schedule=schedule, iter_max=5)
    trained = [p for p in train(settings, images, CPU).parameters() if p.requires_grad]
    for ours, theirs in zip(trained, from_the_papers(settings, images, rates, weight), strict=True):
        assert (ours - theirs).abs().max() < 2e-6  # a few roundings of float32


@pytest.mark.parametrize(
    ("schedule", "iter_max", "factors"),
    [
        ("constant", 1000, {0: 1, 500: 1, 999: 1}),
        ("linear", 1000, {0: 0.01, 49: 0.5, 90: 0.91, 91: 0.909, 500: 0.5, 999: 0.001}),
        ("linear", 20000, {0: 0.01, 98: 0.99, 99: 0.99505, 10000: 0.5, 19999: 0.00005}),
        ("linear", 10, {0: 0.01, 4: 0.05, 9: 0.1}),
    ],
)
def test_the_rate_rises_over_a_hundred_steps_and_falls_to_zero(images, schedule, iter_max, factors):
    """A first step of Adam moves a parameter by the learning rate (Kingma and Ba, section 2.1)."""
    settings = TINY._replace(lr=8, lr_schedule=schedule, iter_max=iter_max)
    before = new_model(settings).dec.net.bias
    for step, factor in factors.items():
        training = Training(settings, CPU)
        training.step = step
        training.take_step(images.train[:10])
        moved = (training.model.dec.net.bias - before).abs().max().item()
        assert moved == pytest.approx(8 * factor, rel=1e-3)


def test_the_pixels_are_drawn_anew_at_each_step_and_not_from_the_global_source(images):
    def losses(run, seed):
        """Of three steps on the same images, which do not change the model."""
        training = Training(TINY._replace(run=run, lr=1e-30), CPU)
        training.model.load_state_dict(new_model(TINY).state_dict())
        for p in training.model.enc.parameters():
            torch.nn.init.constant_(p, -30)  # no variance, so that there is no latent noise
        torch.manual_seed(seed)
        return [training.take_step(images.train[:10]).item() for _ in range(3)]

    first, again, other = losses(0, 1), losses(0, 2), losses(1, 1)
    assert first == again
    assert len({*first, *other}) == 6


def test_a_training_goes_on_from_its_state_dict(images, tmp_path):
    first, second = Training(TINY, CPU), Training(TINY, CPU)
    for _ in range(3):
        first.take_step(images.train[:10])
    checkpoint.save(first.state_dict(), tmp_path / "state")
    losses = [first.take_step(images.train[:10]).item() for _ in range(3)]
    second.load_state_dict(checkpoint.load(tmp_path / "state"))
    assert second.step == 3
    assert [second.take_step(images.train[:10]).item() for _ in range(3)] == losses
    assert same_parameters(first.model, second.model)
    assert torch.equal(first.window, second.window)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_training_step_does_not_wait_for_the_gpu(images):
    training, pixels = Training(TINY, torch.device("cuda")), images.train[:10].cuda()
    for _ in range(3):
        training.take_step(pixels)
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.take_step(pixels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


# The order of the images.


def some_batches(number, n=1000, run=0, step=0, size=100):
    return list(islice(data.batches(n, size, run, CPU, step), number))


def test_an_epoch_has_every_image_once_and_a_new_order_each_time():
    batches = some_batches(30)
    assert all(len(rows) == 100 for rows in batches)
    orders = [torch.cat(batches[i : i + 10]).tolist() for i in (0, 10, 20)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_an_order_belongs_to_the_run_and_the_epoch():
    first, again, other = (torch.cat(some_batches(20, run=run)) for run in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first[:1000], other[:1000])
    assert not torch.equal(first[1000:], other[1000:])


def test_the_order_goes_on_at_any_step():
    whole = some_batches(25)
    for step in (1, 9, 10, 11, 20):
        rest = some_batches(25 - step, step=step)
        assert torch.equal(torch.cat(rest), torch.cat(whole[step:]))


def test_an_incomplete_batch_is_left_out():
    batches = some_batches(8, n=77, size=19)
    assert [len(rows) for rows in batches] == [19] * 8
    assert all(len(torch.cat(batches[i : i + 4]).unique()) == 76 for i in (0, 4))


# What a run leaves.


def test_the_same_run_is_the_same_bytes_and_another_is_not(images):
    def trained(run, **options):
        torch.randn(7)  # the global source has no part in it
        train(TINY._replace(run=run), images, CPU, **options)
        return results_in(FOLDER.with_name(TINY._replace(run=run).name))

    first = trained(0)
    assert first.keys() == {"model-00030.pt", "metrics.csv"}
    assert trained(0, seconds_between_states=0) == first
    assert trained(1)["model-00030.pt"] != first["model-00030.pt"]


def test_training_leaves_the_sources_of_others(images):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    train(TINY, images, CPU)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]


def test_models_come_every_iter_save_and_at_the_end(images, capsys):
    model = train(TINY, images, CPU, iter_save=20)
    assert checkpoint.saved_steps(FOLDER) == [20, 30]
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"Saved to {FOLDER}/model-{step:05d}.pt" for step in (20, 30)]
    assert same_parameters(load_trained(TINY, CPU), model)
    assert load_trained(TINY, CPU).name == TINY.name
    assert not same_parameters(load_trained(TINY._replace(iter_max=20), CPU), model)
    with pytest.raises(CheckpointError, match="steps saved in its folder: 20, 30; choose one"):
        load_trained(TINY._replace(iter_max=25), CPU)


def test_the_rows_of_training_are_means_over_a_hundred_steps(images):
    settings = TINY._replace(iter_max=200)
    train(settings, images, CPU)
    with seeds.seeded(seeds.seed_for(0, seeds.NOISE), CPU):
        training, bounds = Training(settings, CPU), []
        measure = training.model.negative_elbo_bound

        def record(x):
            bounds.append(measure(x))
            return bounds[-1]

        training.model.negative_elbo_bound = record
        for rows in islice(data.batches(len(images.train), 10, 0, CPU), 200):
            training.take_step(images.train[rows])
    bounds = np.array([[value.item() for value in values] for values in bounds])
    rows = metrics_in(FOLDER, "train")
    assert rows.keys() == {100, 200}
    assert rows[100] == pytest.approx(bounds[:100].mean(0), rel=1e-5)
    assert rows[200] == pytest.approx(bounds[100:200].mean(0), rel=1e-5)
    assert same_parameters(training.model, load_trained(settings, CPU))


def check_test_rows(images, iter_max, iter_save, steps):
    """The rows on test images are there after these steps, and those of a model are its bounds."""
    settings = TINY._replace(iter_max=iter_max)
    train(settings, images, CPU, iter_save=iter_save)
    subset, everything = (metrics_in(FOLDER, kind) for kind in ("test", "all test"))
    assert list(subset) == list(everything) == steps
    step = checkpoint.saved_steps(FOLDER)[0]
    measured = evaluate.measure(load_trained(settings._replace(iter_max=step), CPU), images)
    assert subset[step] == measured["100 test images"]
    assert everything[step] == measured["all 60 test images"]
    return subset, everything


def test_the_rows_on_test_images_are_those_of_the_models(images):
    often = check_test_rows(images, 120, 50, [50, 100, 120])
    seldom = check_test_rows(images, 120, 110, [100, 110, 120])
    assert seldom[0][100] == often[0][100]
    assert seldom[1][100] == often[1][100]


@pytest.mark.slow
def test_the_rows_on_test_images_become_rare(images):
    check_test_rows(images, 2100, 2100, [100, 200, 500, 1000, 2000, 2100])


def test_a_weight_on_the_kl_is_minimized_and_not_logged(images, change_loss):
    settings, losses, kl = TINY._replace(iter_max=100), [], []
    for weight in (1, 20):
        change_loss(lambda loss, kl, weight=weight: loss + (weight - 1) * kl)
        train(settings, images, CPU, show=lambda step, loss: losses.append(loss))
        nelbo, *parts = metrics_in(FOLDER, "train")[100]
        assert nelbo == pytest.approx(sum(parts), rel=1e-5)
        measured = evaluate.measure(load_trained(settings, CPU), images)
        assert metrics_in(FOLDER, "test")[100] == measured["100 test images"]
        kl.append(parts[0])
    assert kl[1] < 0.5 * kl[0]


@pytest.mark.slow
def test_training_learns_the_synthetic_digits(synthetic_images):
    settings = Settings(z=4, dataset="synthetic", iter_max=300)
    x = evaluate.subset_images(synthetic_images)
    assert evaluate.bounds(new_model(settings), x, 10).nelbo > 500
    assert evaluate.bounds(train(settings, synthetic_images, CPU), x, 10).nelbo < 180


@pytest.mark.slow
def test_five_hundred_steps_on_mnist_end_below_135(mnist_dir):
    """About 129 is usual, and 145 at half the learning rate."""
    images = data.load("mnist", mnist_dir)
    model = train(Settings(iter_max=500), images, CPU)
    assert evaluate.bounds(model, evaluate.all_images(images), 1).nelbo < 135


# The clock.


def test_states_are_saved_and_steps_are_shown_by_a_clock_that_is_never_set_back(images, clock):
    shown, states = [], []

    def show(step, loss):
        shown.append(step)
        if STATE.exists():
            states.append(checkpoint.load(STATE)["step"])

    clock.step = 0.125
    train(TINY, images, CPU, show=show, seconds_between_states=1.75)
    assert shown[:7] == [2, 4, 6, 8, 10, 12, 14]
    assert sorted(set(states)) == [14, 28]
    assert checkpoint.training_seconds(FOLDER, 30) == 30 / 8


def test_a_state_is_saved_every_minute(images, clock, interrupted):
    def show(step, loss):
        if step == 59:
            assert not STATE.exists()
        if step in (61, 119, 121):
            states.append(checkpoint.load(STATE)["step"])

    states = []
    interrupted(TINY._replace(iter_max=1000), after=125, show=show)
    assert states == [60, 60, 120]


def test_the_time_of_training_includes_what_came_before(images, clock, interrupted):
    interrupted(TINY, after=12)
    assert checkpoint.load(STATE)["seconds"] == 12
    clock.now += 10_000
    interrupted(TINY, after=5, resume=True)
    train(TINY, images, CPU, resume=True)
    assert checkpoint.training_seconds(FOLDER, 30) == 30
    train(TINY, images, CPU, resume=True)
    assert checkpoint.training_seconds(FOLDER, 30) == 30


# Interruptions, and going on.


@pytest.mark.parametrize("schedule", ["linear", pytest.param("constant", marks=pytest.mark.slow)])
def test_an_interrupted_run_ends_in_the_same_bytes(images, interrupted, tmp_path, schedule):
    settings = TINY._replace(iter_max=110, lr_schedule=schedule)
    folder = checkpoint.run_folder(settings)
    train(settings, images, CPU, iter_save=60)
    whole = results_in(folder.rename(tmp_path / "whole"))
    reached = 0
    for after in (1, 21, 40, 1, 30):  # in the first step, an epoch, and at a checkpoint
        stop = interrupted(settings, after, iter_save=60, resume=True)
        assert f"interrupted at step {checkpoint.load(folder / STATE.name)['step']};" in str(stop)
        assert "the same command with --resume 1 goes on from there" in str(stop)
        assert checkpoint.load(folder / STATE.name)["step"] > reached
        reached = checkpoint.load(folder / STATE.name)["step"]
    assert reached < 110
    model = train(settings, images, CPU, iter_save=60, resume=True)
    assert results_in(folder) == whole
    assert same_parameters(model, load_trained(settings, CPU))


@pytest.mark.slow
def test_a_signal_at_any_line_of_a_step_is_saved(images, clock):
    """The lines are followed as a debugger does it."""
    module, usual = sys.modules[train.__module__].__file__, signal.getsignal(signal.SIGTERM)

    def follow(settings, act):
        """Train, and call `act` with each line while signals are collected, and its visits."""
        visits = Counter()

        def trace(frame, event, _):
            if frame.f_code.co_filename != module:
                return None
            if event == "line" and signal.getsignal(signal.SIGTERM) is not usual:
                visits[frame.f_lineno] += 1
                act(frame.f_lineno, visits[frame.f_lineno])
            return trace

        outer = sys.gettrace()
        sys.settrace(trace)
        try:
            train(settings, images, CPU)
        finally:
            sys.settrace(outer)

    lines = set()
    follow(TINY._replace(iter_max=3), lambda line, visit: visit == 2 and lines.add(line))
    assert len(lines) > 20
    for line in lines:
        shutil.rmtree(FOLDER)

        def act(*visit, second=(line, 2)):
            if visit == second:
                signal.raise_signal(signal.SIGTERM)

        with pytest.raises(Interrupted) as stop:
            follow(TINY._replace(iter_max=50), act)
        assert f"interrupted at step {checkpoint.load(STATE)['step']};" in str(stop.value)


def test_signals_are_collected_and_the_usual_handlers_are_back(images, stray):
    usual = [signal.getsignal(number) for number in ENDING]

    def show(step, loss):
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.raise_signal(number)

    with pytest.raises(Interrupted) as stop:
        train(TINY, images, CPU, show=show, seconds_between_states=0)
    assert stop.value.status == 128 + signal.SIGTERM  # the first
    assert stray == []
    assert [signal.getsignal(number) for number in ENDING] == usual
    train(TINY, images, CPU, resume=True)
    assert [signal.getsignal(number) for number in ENDING] == usual


def test_a_signal_during_the_last_save_is_an_interruption_too(images):
    with pytest.raises(Interrupted) as stop:
        train(TINY, images, CPU, show=lambda *_: signal.raise_signal(signal.SIGHUP))
    assert stop.value.status == 128 + signal.SIGHUP
    assert "interrupted at step 30;" in str(stop.value)
    assert checkpoint.saved_steps(FOLDER) == [30]


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_the_shell_ignores_stays_ignored(images, number):
    signal.signal(number, signal.SIG_IGN)
    settings = TINY._replace(iter_max=1)
    train(settings, images, CPU, show=lambda *_: signal.raise_signal(number))
    assert signal.getsignal(number) == signal.SIG_IGN


def test_a_constant_run_may_be_made_longer(images):
    train(TINY._replace(iter_max=20), images, CPU)
    train(TINY, images, CPU, resume=True)
    longer = load_trained(TINY, CPU)
    assert same_parameters(longer, train(TINY, images, CPU))


@pytest.mark.parametrize("after", [12, 300])
def test_a_run_that_ends_where_it_was_interrupted_is_complete(images, interrupted, after):
    settings = TINY._replace(iter_max=after)
    interrupted(settings._replace(iter_max=1000), after, iter_save=200)
    model = train(settings, images, CPU, iter_save=200, resume=True)
    assert same_parameters(load_trained(settings, CPU), model)
    resumed = results_in(FOLDER)
    train(settings, images, CPU, iter_save=200)
    assert results_in(FOLDER) == resumed


def test_a_shorter_run_is_loaded_from_its_model(images, capsys):
    train(TINY, images, CPU, iter_save=10)
    before = files_in(FOLDER)
    capsys.readouterr()
    model = train(TINY._replace(iter_max=20), images, CPU, resume=True)
    assert same_parameters(model, load_trained(TINY._replace(iter_max=20), CPU))
    with pytest.raises(CheckpointError, match="steps saved in its folder: 10, 20, 30; choose"):
        train(TINY._replace(iter_max=25), images, CPU, resume=True)
    assert files_in(FOLDER) == before
    assert "Already at step 30\n" in capsys.readouterr().out


def test_a_complete_run_is_only_loaded(images, capsys):
    trained = train(TINY, images, CPU)
    before = results_in(FOLDER)
    loaded = train(TINY, images, CPU, resume=True)
    assert same_parameters(trained, loaded)
    assert results_in(FOLDER) == before
    assert "Already at step 30\n" in capsys.readouterr().out


@pytest.mark.parametrize("step", [20, 30])
def test_a_run_killed_before_its_model_was_written_writes_it(images, interrupted, step):
    if step == 20:
        interrupted(TINY, after=20, iter_save=20)
    else:
        train(TINY, images, CPU, iter_save=20)
    before, model = results_in(FOLDER), checkpoint.model_path(FOLDER, step)
    model.unlink()
    (FOLDER / "metrics.csv").unlink()
    train(TINY._replace(iter_max=step), images, CPU, iter_save=20, resume=True)
    assert results_in(FOLDER) == before


def test_nothing_to_resume_is_said_and_a_run_starts(images, capsys):
    FOLDER.mkdir(parents=True)
    (FOLDER / "notes.txt").write_text("a student's")
    train(TINY, images, CPU, resume=True)
    assert f"Nothing to resume in {FOLDER}: starting anew\n" in capsys.readouterr().out
    assert checkpoint.saved_steps(FOLDER) == [30]
    assert (FOLDER / "notes.txt").exists()


# What is refused.


def refused(settings, images, **options):
    """The sentence with which the run is not resumed; its folder stays as it is."""
    folder = checkpoint.run_folder(settings)
    before = files_in(folder)
    with pytest.raises(CheckpointError) as caught:
        train(settings, images, CPU, resume=True, **options)
    assert files_in(folder) == before
    assert "\n" not in str(caught.value)
    assert "delete" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"nn": "v1"}, "nn was v1 and is tiny"),
        ({"z": 3}, "z was 3 and is 2"),
        ({"batch_size": 20}, "batch_size was 20 and is 10"),
        ({"lr": 2e-3}, "lr was 0.002 and is 0.001"),
        ({"lr_schedule": "linear"}, "lr_schedule was linear and is constant"),
        ({"dataset": "mnist"}, "dataset was mnist and is synthetic"),
        ({"run": 1}, "run was 1 and is 0"),
        ({"run": 1, "z": 3}, "z was 3 and is 2, run was 1 and is 0"),
    ],
)
def test_a_state_of_other_settings_is_refused(images, interrupted, changed, difference):
    settings = TINY._replace(**changed)
    interrupted(settings, after=1)
    checkpoint.run_folder(settings).rename(FOLDER)
    sentence = refused(TINY, images)
    assert f"{STATE} is of other settings: {difference}; without --resume 1" in sentence


def test_a_linear_run_cannot_be_made_longer(images, interrupted):
    settings = TINY._replace(lr_schedule="linear")
    interrupted(settings, after=2)
    sentence = refused(settings._replace(iter_max=40), images)
    assert "other settings: iter_max was 30 and is 40; without" in sentence


def test_a_state_of_another_device_is_refused(images, interrupted):
    interrupted(TINY, after=1)
    state = checkpoint.load(STATE)
    checkpoint.save(state | {"settings": state["settings"] | {"device": "cuda"}}, STATE)
    assert "device was cuda and is cpu" in refused(TINY, images)


def test_a_state_of_other_networks_is_not_called_damaged(images, interrupted, monkeypatch):
    """As when a student has changed the file of the networks."""
    interrupted(TINY, after=1)

    class Wider(torch.nn.Module):
        def __init__(self, z_dim):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(784, 9), torch.nn.Linear(9, 2 * z_dim))

        def encode(self, x):
            return gaussian_parameters(self.net(x))

    monkeypatch.setattr(nns.find("tiny"), "Encoder", Wider)
    sentence = refused(TINY, images)
    assert f"{STATE} is of other networks" in sentence
    assert "enc.net" in sentence
    assert f"without --resume 1 a new run starts, and {FOLDER} is kept" in sentence
    assert "damaged" not in sentence


@pytest.fixture(scope="module")
def complete_folder(images, tmp_path_factory):
    place = tmp_path_factory.mktemp("complete")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])
        train(TINY._replace(iter_max=20), images, CPU, iter_save=10)
    return place / FOLDER


@pytest.fixture
def complete(complete_folder):
    """The run has been trained for 20 steps, and saved after 10 and 20."""
    shutil.copytree(complete_folder, FOLDER)


PARTS = (
    "settings",
    "step",
    "seconds",
    "window",
    "metrics",
    "model",
    "optimizer",
    "pixels",
    "noise",
)


def change(key, value):
    return lambda state: state.update({key: value})


def change_moments(key, to):
    """Change what Adam keeps for each parameter."""

    def damage(state):
        for kept in state["optimizer"].values():
            kept[key] = to(kept.get(key))

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda state, key=key: state.pop(key) for key in PARTS),
        *(change(key, None) for key in PARTS),
        change("settings", {}),
        change("settings", []),
        change("step", "7"),
        change("step", 7.5),
        change("step", -7),
        change("step", torch.tensor(7)),
        change("seconds", "long"),
        change("window", [0.0, 0.0, 0.0]),
        change("window", torch.zeros(4)),
        change("window", torch.zeros(1)),
        change("window", torch.zeros(3, dtype=torch.float64)),
        change("metrics", [(1, "train")]),
        change("metrics", [(1, "train", 3.0, 2.0, 1.0, 0.0)]),
        change("metrics", [(1, "train", "a", "b", "c")]),
        change("metrics", {}),
        change("model", {}),
        change("model", [1, 2]),
        change("model", {"dec.net.weight": torch.zeros(784, 2)}),
        change("pixels", torch.zeros(3, dtype=torch.uint8)),
        change("noise", torch.zeros(5056)),
        change("noise", torch.zeros(5056, dtype=torch.uint8)),
        change("optimizer", {}),
        lambda state: state["optimizer"].popitem(),
        lambda state: state["optimizer"].update({"7": {}}),
        lambda state: state["optimizer"].update({2: state["optimizer"][3]}),
        lambda state: state["model"].update(z_prior_m=torch.tensor([torch.nan])),
        # On some of these, PyTorch would read memory that is not its own.
        change_moments("exp_avg", lambda x: x[:1]),
        change_moments("exp_avg", lambda x: x.double()),
        change_moments("exp_avg_sq", lambda x: torch.zeros(())),
        change_moments("exp_avg_sq", lambda x: None),
        change_moments("step", lambda x: torch.zeros(0)),
        change_moments("other", lambda x: 0.0),
    ],
)
def test_a_damaged_state_is_refused(complete, images, damage):
    state = checkpoint.load(STATE)
    damage(state)
    checkpoint.save(state, STATE)
    assert str(STATE) in refused(TINY, images)


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"PK\x03\x04nonsense", bytes(1000), "cut", "flipped", "a model"]
)
def test_a_file_that_is_no_state_is_refused(complete, images, content):
    sound = STATE.read_bytes()
    others = {
        "cut": sound[:-1],
        "flipped": bytes([*sound[:9999], sound[9999] ^ 1, *sound[10000:]]),
        "a model": checkpoint.model_path(FOLDER, 20).read_bytes(),
    }
    STATE.write_bytes(others.get(content, content))
    assert str(STATE) in refused(TINY, images)


def test_models_without_a_state_are_no_run_to_go_on_with(complete, images):
    STATE.unlink()
    sentence = refused(TINY, images)
    assert f"{FOLDER} has models, but no training-state.pt to go on from; without" in sentence
    assert f"without --resume 1 a new run starts, and {FOLDER} is kept" in sentence


def test_fewer_images_than_a_batch_are_refused_before_anything_is_moved(complete, images):
    before = files_in(Path("checkpoints"))
    for resume in (False, True):
        with pytest.raises(DataError, match="--batch_size 10 is too large: there are 9 images"):
            train(TINY, images._replace(train=images.train[:9]), CPU, resume=resume)
    assert files_in(Path("checkpoints")) == before
    train(TINY._replace(iter_max=1), images._replace(train=images.train[:10]), CPU)


def test_a_folder_in_which_another_trains_is_left_alone(complete, images):
    before = files_in(FOLDER)
    with checkpoint.locked(FOLDER):
        for resume in (False, True):
            with pytest.raises(BusyError, match=f"another process is training in {FOLDER}"):
                train(TINY, images, CPU, resume=resume)
    assert files_in(FOLDER) == before
    assert [path for path in FOLDER.parent.iterdir() if path.is_dir()] == [FOLDER]
    train(TINY, images, CPU, resume=True)


# An earlier run.


def test_an_earlier_run_is_moved_aside_whole(complete, images, capsys):
    (FOLDER / "notes.txt").write_text("a student's")
    (FOLDER / "pictures").mkdir()
    (FOLDER / "pictures" / "samples.png").write_bytes(b"...")
    first, second, third = (FOLDER.with_name(f"{FOLDER.name}.{number}") for number in (1, 2, 3))
    first.mkdir()
    before = files_in(FOLDER)
    train(TINY._replace(iter_max=3), images, CPU)
    printed = capsys.readouterr().out
    assert f"The earlier run is now {second}; --resume 1 would have gone on with it\n" in printed
    assert files_in(second) == before
    assert files_in(first) == {}
    assert files_in(FOLDER).keys() == {"model-00003.pt", "metrics.csv", "training-state.pt"}
    train(TINY._replace(iter_max=3), images, CPU)
    assert files_in(third).keys() == {"model-00003.pt", "metrics.csv", "training-state.pt"}
    assert files_in(second) == before


@pytest.mark.parametrize("kept", ["training-state.pt", "model-00020.pt"])
def test_what_was_saved_is_moved_aside_be_it_a_state_or_a_model(complete, images, kept):
    for path in FOLDER.iterdir():
        if path.name != kept:
            path.unlink()
    before = files_in(FOLDER)
    train(TINY._replace(iter_max=1), images, CPU)
    assert files_in(FOLDER.with_name(f"{FOLDER.name}.1")) == before


def test_a_run_that_fails_at_once_loses_nothing_of_an_earlier_one(complete, images, change_loss):
    before = files_in(FOLDER)
    change_loss(lambda loss, _: loss + torch.nan)
    for _ in range(2):
        with pytest.raises(DivergenceError):
            train(TINY, images, CPU, seconds_between_states=0)
    assert files_in(FOLDER.with_name(f"{FOLDER.name}.1")) == before
    assert not FOLDER.with_name(f"{FOLDER.name}.2").exists()  # nothing was saved: it is used again


# Divergence.


def diverge(images, step, last_good, **options):
    """Train to divergence at a step, with a checkpoint each ten steps."""
    with pytest.raises(DivergenceError) as caught:
        train(TINY, images, CPU, iter_save=10, **options)
    assert str(caught.value) == (
        f"the training diverged: at step {step} the loss, a bound or a parameter is not finite; "
        f"last good checkpoint in {FOLDER}: {last_good}; a smaller --lr may help"
    )


@pytest.mark.parametrize(("step", "value"), [(13, torch.nan), (20, torch.inf), (25, torch.nan)])
def test_a_loss_that_is_not_finite_ends_the_run(images, change_loss, step, value):
    steps = count(1)
    change_loss(lambda loss, _: loss + (value if next(steps) == step else 0))
    diverge(images, step, (step - 1) // 10 * 10, seconds_between_states=0)
    check_good(step)


def check_good(step):
    """What is saved is from before that step, and sound."""
    assert checkpoint.saved_steps(FOLDER) == [*range(10, step, 10)]
    assert checkpoint.load(STATE)["step"] == step - 1
    for path in (STATE, checkpoint.model_path(FOLDER, 10)):
        content = checkpoint.load(path)
        assert all(x.isfinite().all() for x in content.get("model", content).values())
    assert "nan" not in (FOLDER / "metrics.csv").read_text()


@pytest.mark.parametrize(("step", "value"), [(13, torch.nan), (20, torch.inf)])
def test_a_parameter_that_is_not_finite_ends_the_run(images, after_step, step, value):
    """After a step whose loss, which is that before it, was finite."""

    def poison(steps, adam):
        if steps == step:
            with torch.no_grad():
                adam.param_groups[0]["params"][-1][-1] = value

    after_step(poison)
    diverge(images, step, 10, seconds_between_states=0)
    check_good(step)


def test_a_bound_on_test_images_that_is_not_finite_ends_the_run(images, monkeypatch):
    """As of logits that are finite for the images trained on and overflow for others."""
    plain = VAE.negative_elbo_bound

    def bound(model, x):
        nelbo, kl, rec = plain(model, x)
        overflows = len(x) > 10 and checkpoint.saved_steps(FOLDER) == [10]
        return nelbo + (torch.inf if overflows else 0), kl, rec

    monkeypatch.setattr(VAE, "negative_elbo_bound", bound)
    diverge(images, 20, 10, seconds_between_states=0)
    check_good(20)


def test_a_large_learning_rate_diverges_before_the_first_checkpoint(images):
    for lr in (1e30, 1e300):
        with pytest.raises(DivergenceError, match=r"last good checkpoint in .*: none; a smaller"):
            train(TINY._replace(lr=lr), images, CPU, iter_save=1)
