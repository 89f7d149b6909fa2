"""Processes that share batches over Gloo on the CPU, as torchrun starts them."""

import os
import shutil
import signal
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import NETWORKS, copy_project
from launching import enter, run_script
from training import CPU, TINY, files_in, results_in, signal_after, train_small

from codebase import train, utils
from codebase.compute.processes import Processes, connected
from codebase.models import nns
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.settings import Settings
from codebase.system.errors import UserError

IS_LINUX = sys.platform == "linux"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IS_LINUX, reason="Gloo of Linux")]
SIZE = 3
SHARED = TINY._replace(batch_size=15, iter_max=100)
NOISY, DIVERGING = SHARED._replace(run=1, iter_max=3), SHARED._replace(run=2, lr=1e30)
RUN = RunFolder(SHARED)
# Of such files, each process but the first reads, deletes and moves none.
OTHERS = {f"{RUN.path.name}/{name}": b"" for name in (".1.tmp", "model-00001.pt", RUN.state.name)}


def remove_noise(patch: pytest.MonkeyPatch) -> None:
    """Make the pixels and the latent deterministic."""
    patch.setattr(train, "binarize", lambda images: images.gt(127).float())
    patch.setattr(utils, "sample_gaussian", lambda m, v: m)


def work(rank: int, folder: Path, port: int) -> None:
    """Be one of the processes, which share no folder, and save a report."""
    (folder / str(rank)).mkdir()
    enter(folder / str(rank), rank, SIZE, port)
    nns.__path__.append(str(NETWORKS))
    report, connect = {}, dist.init_process_group

    def watched(*arguments, timeout, **options):
        report["timeout"] = timeout
        connect(*arguments, timeout=timeout, **options)

    dist.init_process_group = watched
    try:
        with connected(CPU) as processes:
            work_together(processes, report)
    except UserError as error:
        report["error"] = str(error)
    torch.save(report, folder / f"report-{rank}")
    sys.stdout.flush()
    os._exit(0)  # as run_vae.py does under torchrun


def work_together(processes: Processes, report: dict) -> None:
    """Share all kinds of work, and report it."""
    rank = processes.rank
    print("a line of output", flush=True)
    tensors = [torch.full((2, 2), float(rank)), torch.tensor(10.0**rank)]
    processes.all_reduce_mean(tensors)
    report["mean"] = [x.tolist() for x in tensors]
    report["any"] = [processes.any(rank in who) for who in ([], [2], [0, 1, 2])]
    report["broadcast"] = processes.broadcast({"by": rank})
    report["gathered"] = processes.gather({rank: f"of {rank}"})
    for name in OTHERS if rank == 1 else ():
        RUN.path.mkdir(parents=True, exist_ok=True)
        (RUN.path.parent / name).touch()
    for _ in range(2):  # the second run moves the first one aside
        train_small(NOISY, processes=processes)

    remove_noise(pytest.MonkeyPatch())
    with signal_after(57 if rank == 2 else 0), pytest.raises(UserError) as caught:
        train_small(SHARED, iter_save=50, processes=processes)
    report["interruption"] = str(caught.value), caught.value.status
    if processes.first:
        shutil.copytree("checkpoints", "../interrupted/checkpoints")
    train_small(SHARED, iter_save=50, processes=processes, resume=True)
    with pytest.raises(UserError, match="diverged"):
        train_small(DIVERGING, processes=processes, seconds_between_states=0)
    report["files"] = files_in(Path("checkpoints"))
    if rank < 2:  # the last process ends
        train_small(SHARED, processes=processes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forking):
    """A folder with a folder for each process, and with the reports of the processes."""
    folder = tmp_path_factory.mktemp("processes")
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    arguments = [(rank, folder, store.port) for rank in range(SIZE)]
    started = [forking.Process(target=work, args=each, daemon=True) for each in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    outputs = [path.read_text() for path in folder.glob("*/output-*")]
    assert [process.exitcode for process in started] == [0] * SIZE, "\n".join(outputs)
    return folder


@pytest.fixture(scope="module")
def reports(folder):
    """The reports of the processes, by rank."""
    return [torch.load(folder / f"report-{rank}", weights_only=False) for rank in range(SIZE)]


def test_processes_share_tensors_and_objects_and_only_the_first_one_prints(reports, folder):
    for report in reports:
        assert report["mean"] == [[[1, 1], [1, 1]], 37]
        assert report["any"] == [False, True, True]
        assert report["broadcast"] == {"by": 0}
        assert report["gathered"] == {0: "of 0", 1: "of 1", 2: "of 2"}
        assert report["timeout"] > timedelta(weeks=1)
    outputs = [(folder / f"{rank}/output-{rank}").read_text() for rank in range(SIZE)]
    assert outputs[0].count("a line of output") == 1
    assert "Resuming at step 60\n" in outputs[0] and outputs[1:] == ["", ""]


def test_only_the_first_process_uses_its_folder_and_the_same_run_has_the_same_bytes(
    reports, folder
):
    assert [report["files"] for report in reports[1:]] == [OTHERS, {}]
    again = folder / "0" / RunFolder(NOISY).path
    assert (again / "model-00003.pt").exists()
    assert results_in(again) == results_in(again.with_name(f"{again.name}.1"))


def test_a_signal_to_one_process_stops_all_of_them_after_the_same_step(reports, folder):
    """The signal comes in step 57, and at each tenth step the processes look for signals."""
    state = torch.load(folder / "interrupted" / RUN.state)
    assert state["training"]["step"] == 60
    for report in reports:
        message, status = report["interruption"]
        assert "step 60;" in message and status == 128 + signal.SIGTERM


def test_without_noise_the_number_of_processes_changes_only_the_rounding(folder, monkeypatch):
    """So the mean gradient is that of the whole batch, and the rows are means, too.

    One process may resume a run of three.
    """
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
    remove_noise(monkeypatch)
    for name in ("alone", "interrupted"):
        (folder / name).mkdir(exist_ok=True)
        monkeypatch.chdir(folder / name)
        train_small(SHARED, iter_save=50, resume=name == "interrupted")
    alone, *others = (
        RunFolder(SHARED, folder / name / "checkpoints") for name in ("alone", "interrupted", "0")
    )
    for other in others:
        for step in (50, 100):
            model, same = torch.load(alone.model(step)), torch.load(other.model(step))
            torch.testing.assert_close(same, model, atol=1e-5, rtol=0)
        for row, same in zip(read_metrics(alone), read_metrics(other), strict=True):
            assert row[:2] == same[:2]
            assert row.bounds == pytest.approx(same.bounds, rel=1e-4, nan_ok=True)


def test_a_process_that_ends_ends_the_others_with_a_sentence(reports):
    assert ["another process" in report.get("error", "") for report in reports] == [1, 1, 0]


# Once a model is saved, the second of two processes kills itself, but not after a restart.
DYING = """
import os, signal
from pathlib import Path
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

class Encoder(tiny.Encoder):
    def encode(self, x):
        place = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
        if place == ("1", "0") and [*Path("checkpoints").glob("*/model-*.pt")]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(x)
"""


def test_torchrun_restarts_killed_processes_and_their_run_goes_on(forking, small, tmp_path):
    script = copy_project(tmp_path / "project")
    (script.parent / "codebase/models/nns/dying.py").write_text(DYING)
    run = Settings("dying", 3, batch_size=200, iter_max=200, dataset="synthetic")
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", str(script), *small]
    options += ["--nn=dying", "--batch_size=200", "--iter_max=200", "--iter_save=100"]
    options += ["--resume=1"]
    torchrun = Path(dist.__file__).with_name("run.py")
    launcher = forking.Process(target=run_script, args=(torchrun, options, tmp_path, 0, 1, 0))
    launcher.start()
    launcher.join(300)
    launcher.terminate()  # does nothing after it has ended
    output = (tmp_path / "output-0").read_text()
    assert launcher.exitcode == 0, output
    assert "Resuming at step 100\n" in output
    assert output.count("NELBO: ") == 2
    assert RunFolder(run, tmp_path / "checkpoints").saved_steps() == [100, 200]
