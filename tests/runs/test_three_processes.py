"""Three processes that share their work over Gloo, as torchrun starts them on two machines."""

import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import wait_for
from torch.distributions import Normal
from training import (
    CPU,
    IMAGES,
    NETWORKS,
    TINY,
    after_each_step,
    files_in,
    results_in,
    train_small,
)

from codebase import train, utils
from codebase.compute.processes import connected
from codebase.data import batch_indices, binarize
from codebase.models import nns
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.settings import Settings
from codebase.system.errors import UserError
from codebase.system.seeds import STEP, seed_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Gloo of Linux"),
]
SIZE = 3
# LOCAL_RANK and LOCAL_WORLD_SIZE: one process on the first machine, two on the second.
MACHINES = [(0, 1), (0, 2), (1, 2)]
WHO = [(), (0,), (1,), (2,), (1, 2), (0, 1, 2)]  # ranks that set a flag
SHARED = TINY._replace(batch_size=15, iter_max=100)
RUN = RunFolder(SHARED)
NOISY, DIVERGING = SHARED._replace(run=1, iter_max=3), SHARED._replace(lr=1e30, run=2)


def train_shared(settings: Settings = SHARED, **options) -> None:
    train_small(settings, iter_save=50, **options)


def remove_noise(patch: pytest.MonkeyPatch) -> None:
    """Make the pixels and the latent deterministic."""
    patch.setattr(train, "binarize", lambda images: images.gt(127).float())
    patch.setattr(utils, "sample_gaussian", lambda m, v: m)


def record_noise(patch: pytest.MonkeyPatch) -> tuple[list, list]:
    """Let the encoder add noise of its own, and record all noise and the weights.

    The second list is of the measurements between steps.
    """
    steps, measured = [], []
    Encoder = nns.tiny.Encoder
    plain = Encoder.encode

    def encode(self, x):
        noise = torch.randn(len(x), 1)
        in_step = torch.is_grad_enabled()
        (steps if in_step else measured).append([x, noise, self.net.weight.detach().clone()])
        m, v = plain(self, x)
        return m + 0.1 * noise, v

    def sample_gaussian(m, v):
        z = Normal(m, v.sqrt()).rsample()
        if torch.is_grad_enabled():
            steps[-1].append(((z - m) / v.sqrt()).detach())
        return z

    patch.setattr(Encoder, "encode", encode)
    patch.setattr(utils, "sample_gaussian", sample_gaussian)
    return steps, measured


def change_initial_weights(patch: pytest.MonkeyPatch, rank: int) -> None:
    """Let each process begin with other weights."""
    plain = train.new_model

    def new_model(settings):
        model = plain(settings)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += rank
        return model

    patch.setattr(train, "new_model", new_model)


def change_folder(name: str) -> None:
    """Go to this process's folder below another name."""
    place = Path.cwd()
    os.chdir(place.parent.parent / name / place.name)


def work(rank: int, folder: Path, port: int) -> None:
    """Be one of the processes, which share no folder, and save a report."""
    nns.__path__.append(NETWORKS)
    os.chdir(folder / "first" / str(rank))
    output = os.open(folder / f"output-{rank}", os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    local, local_size = MACHINES[rank]
    place = {"RANK": rank, "LOCAL_RANK": local, "LOCAL_WORLD_SIZE": local_size, "WORLD_SIZE": SIZE}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    os.environ["TORCHELASTIC_RESTART_COUNT"] = "0"
    report = {}
    try:
        with pytest.MonkeyPatch.context() as patch:
            work_together(rank, report, patch)
    except UserError as error:
        report["error"] = str(error)
    torch.save(report, folder / f"report-{rank}")
    sys.stdout.flush()
    os._exit(0)  # as run_vae.py does under torchrun


def work_together(rank: int, report: dict, patch: pytest.MonkeyPatch) -> None:
    """Share all kinds of work, and report it."""
    connect, all_reduce = dist.init_process_group, dist.all_reduce

    def watched(*arguments, timeout, **options):
        report["timeout"] = timeout
        connect(*arguments, timeout=timeout, **options)

    patch.setattr(dist, "init_process_group", watched)
    with connected(CPU) as processes:
        print("a line of output", flush=True)
        report["ranks"] = processes.rank, processes.size, processes.first
        report["shard"] = processes.shard(torch.arange(12)).tolist()
        tensors = [torch.full((2, 2), float(rank)), torch.tensor(10.0**rank)]
        processes.all_reduce_mean(tensors)
        report["mean"] = tensors
        report["any"] = [processes.any(rank in who) for who in WHO]
        report["broadcast"] = processes.broadcast({"by": rank})
        report["gathered"] = processes.gather({rank: f"of {rank}"})

        for name in ("first", "again"):
            change_folder(name)
            with pytest.MonkeyPatch.context() as noise:
                report[name], report["measured"] = record_noise(noise)
                change_initial_weights(noise, rank)
                train_shared(NOISY, processes=processes)

        remove_noise(patch)
        change_folder("shared")
        report["before"] = files_in(Path())
        messages = []

        def count(tensor):
            messages.append(len(messages))
            all_reduce(tensor)

        def end(step, _):
            if (rank, step) == (2, 57):
                signal.raise_signal(signal.SIGTERM)

        with after_each_step(end), pytest.raises(UserError) as caught:
            patch.setattr(dist, "all_reduce", count)
            train_shared(processes=processes)
        report["messages"] = len(messages)
        report["interruption"] = str(caught.value), caught.value.status
        if processes.first:
            shutil.copytree("checkpoints", "../../interrupted/checkpoints")
        train_shared(processes=processes, resume=True)
        report["after"] = files_in(Path())
        change_folder("begun alone")
        train_shared(processes=processes, resume=True)
        train_shared(DIVERGING, processes=processes, seconds_between_states=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of all processes, and of the runs of a single one."""
    folder = tmp_path_factory.mktemp("processes")
    for name in ("first", "again", "shared", "begun alone"):
        for rank in range(SIZE):
            (folder / name / str(rank)).mkdir(parents=True)
    (folder / "alone").mkdir()
    (folder / "interrupted").mkdir()
    # Only the first process may read, delete or move such files.
    leftovers = ("shared/0", ".1.tmp"), ("shared/1", ".1.tmp"), ("shared/1", "model-00001.pt")
    for place, name in (*leftovers, ("shared/1", RUN.state.name)):
        (folder / place / RUN.path).mkdir(parents=True, exist_ok=True)
        (folder / place / RUN.path / name).write_text("from another run")
    return folder


@pytest.fixture(scope="module")
def reports(folder, forking):
    """The reports of the processes, by rank."""
    launcher = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])
        remove_noise(patch)
        patch.chdir(folder / "alone")
        train_shared(SHARED._replace(iter_max=50))
        shutil.copytree("checkpoints", folder / "begun alone" / "0" / "checkpoints")
        train_shared(resume=True)
    started = []
    try:
        for rank in range(SIZE):
            started.append(forking.Process(target=work, args=(rank, folder, launcher.port)))
            started[-1].start()
        wait_for(lambda: all(x.exitcode == 0 for x in started) or any(x.exitcode for x in started))
    finally:
        for process in started:
            process.kill()
    outputs = [(folder / f"output-{rank}").read_text() for rank in range(SIZE)]
    assert [process.exitcode for process in started] == [0] * SIZE, "\n".join(outputs)
    reports = [torch.load(folder / f"report-{rank}", weights_only=False) for rank in range(SIZE)]
    for report, output in zip(reports, outputs, strict=True):
        report["output"] = output
    return reports


def test_processes_know_their_ranks_and_share_tensors_and_objects(reports):
    assert [report["ranks"] for report in reports] == [(r, SIZE, r == 0) for r in range(SIZE)]
    assert [report["shard"] for report in reports] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for report in reports:
        square, number = report["mean"]
        assert (square.tolist(), number.item()) == ([[1, 1], [1, 1]], 37)
        assert report["any"] == [False, True, True, True, True, True]
        assert report["broadcast"] == {"by": 0}
        assert report["gathered"] == {0: "of 0", 1: "of 1", 2: "of 2"}
        assert report["timeout"] > timedelta(weeks=1)


def test_only_the_first_process_measures_and_prints(reports):
    assert [bool(report["measured"]) for report in reports] == [True, False, False]
    assert [report["output"].count("a line of output") for report in reports] == [1, 0, 0]
    assert [report["output"] for report in reports[1:]] == ["", ""]
    assert "Resuming at step 60\n" in reports[0]["output"]
    assert f"Saved to {RUN.model(100)}\n" in reports[0]["output"]


def test_each_process_has_its_own_noise_and_the_weights_of_the_first(reports):
    """The noise is in the pixels, in the latent (by `rsample`), and in the encoder."""
    seen = set()
    batches = batch_indices(len(IMAGES.train), 15, NOISY.run, CPU)
    assert all(len(report["first"]) == NOISY.iter_max for report in reports)
    for step, batch in zip(range(NOISY.iter_max), batches, strict=False):
        weights = reports[0]["first"][step][2]
        for rank, shard in enumerate(batch.chunk(SIZE)):
            x, noise, own_weights, latent = reports[rank]["first"][step]
            torch.manual_seed(seed_for(NOISY.run, STEP, step * SIZE + rank))
            assert torch.equal(x, binarize(IMAGES.train[shard]))
            assert torch.equal(noise, torch.randn(5, 1))
            expected = Normal(torch.zeros(5, 2), torch.ones(5, 2)).rsample()
            torch.testing.assert_close(latent, expected, atol=1e-4, rtol=1e-4)
            assert torch.equal(own_weights, weights)
            seen.add(noise[0].item())
    assert len(seen) == SIZE * NOISY.iter_max


def test_the_same_number_of_processes_gives_the_same_bytes_again(reports, folder):
    once, again = (folder / name / "0" / RunFolder(NOISY).path for name in ("first", "again"))
    assert results_in(once) == results_in(again)
    assert (once / "model-00003.pt").exists()


def test_only_the_first_process_uses_its_folder(reports, folder):
    """The others begin, resume and end without one."""
    assert [report["before"] == report["after"] for report in reports] == [False, True, True]
    assert reports[2]["before"] == {}
    assert not list((folder / "shared" / "0").rglob(".*.tmp"))
    assert [*reports[0]["before"]] == [str(RUN.path / ".1.tmp")]
    for name in ("first", "begun alone"):
        assert [files_in(folder / name / rank) for rank in "12"] == [{}, {}]


def test_a_signal_to_one_process_stops_all_of_them_after_the_same_step(reports, folder):
    """The signal comes in step 57. There is one message per step, and one more at every tenth."""
    state = torch.load(folder / "interrupted" / RUN.state)
    assert state["training"]["step"] == 60
    for report in reports:
        message, status = report["interruption"]
        assert message.startswith("interrupted at step 60; ")
        assert status == 128 + signal.SIGTERM
        assert report["messages"] == 60 + 6


def test_without_noise_the_number_of_processes_changes_only_the_rounding(
    reports, folder, monkeypatch
):
    """So the mean gradient is that of the whole batch, and the rows are means, too.

    One process may resume a run of three, and the other way round.
    """
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, NETWORKS])
    remove_noise(monkeypatch)
    monkeypatch.chdir(folder / "interrupted")
    train_shared(resume=True)
    alone = RunFolder(SHARED, folder / "alone" / RUN.path.parent)
    rows = read_metrics(alone)
    assert [(row.step, row.images) for row in rows][-3:] == [
        *((100, name) for name in ("train", "test", "all test"))
    ]
    for name in ("shared/0", "interrupted", "begun alone/0"):
        other = RunFolder(SHARED, folder / name / RUN.path.parent)
        for step in (50, 100):
            one, another = (torch.load(run.model(step)) for run in (alone, other))
            for key, value in one.items():
                torch.testing.assert_close(another[key], value, atol=1e-5, rtol=0)
        for row, same in zip(rows, read_metrics(other), strict=True):
            assert (row.step, row.images) == (same.step, same.images)
            assert row.bounds == pytest.approx(same.bounds, rel=1e-4, nan_ok=True)


def test_divergence_ends_all_processes(reports):
    assert all("diverged" in report["error"] for report in reports)
