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
from conftest import NETWORKS, copy_project, wait_for
from training import CPU, TINY, files_in, results_in, signal_after, train_small

from codebase import train, utils
from codebase.compute.processes import connected
from codebase.models import nns
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.settings import Settings
from codebase.system.errors import UserError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Gloo and /proc of Linux"),
]
SIZE = 3
WHO = [(), (0,), (2,), (1, 2), (0, 1, 2)]  # ranks that set a flag
SHARED = TINY._replace(batch_size=15, iter_max=100)
NOISY, DIVERGING = SHARED._replace(run=1, iter_max=3), SHARED._replace(run=2, lr=1e30)
RUN = RunFolder(SHARED)
# Only the first process may read, delete or move such files.
OF_ANOTHER_RUN = {str(RUN.path / name) for name in (".1.tmp", "model-00001.pt", RUN.state.name)}


def remove_noise(patch: pytest.MonkeyPatch) -> None:
    """Make the pixels and the latent deterministic."""
    patch.setattr(train, "binarize", lambda images: images.gt(127).float())
    patch.setattr(utils, "sample_gaussian", lambda m, v: m)


def work(rank: int, folder: Path, port: int) -> None:
    """Be one of the processes, which share no folder, and save a report."""
    nns.__path__.append(str(NETWORKS))
    os.chdir(folder / str(rank))
    output = os.open("output", os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(SIZE)}
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
    connect = dist.init_process_group

    def watched(*arguments, timeout, **options):
        report["timeout"] = timeout
        connect(*arguments, timeout=timeout, **options)

    patch.setattr(dist, "init_process_group", watched)
    with connected(CPU) as processes:
        print("a line of output", flush=True)
        tensors = [torch.full((2, 2), float(rank)), torch.tensor(10.0**rank)]
        processes.all_reduce_mean(tensors)
        report["mean"] = [x.tolist() for x in tensors]
        report["any"] = [processes.any(rank in who) for who in WHO]
        report["broadcast"] = processes.broadcast({"by": rank})
        report["gathered"] = processes.gather({rank: f"of {rank}"})
        for _ in range(2):  # the second run moves the first one aside
            train_small(NOISY, processes=processes)

        remove_noise(patch)
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
def folder(tmp_path_factory):
    """The folder that has a folder for each process."""
    folder = tmp_path_factory.mktemp("processes")
    for name in (*map(str, range(SIZE)), "alone", "interrupted"):
        (folder / name).mkdir()
    for file in OF_ANOTHER_RUN:
        (folder / "1" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "1" / file).touch()
    return folder


@pytest.fixture(scope="module")
def reports(folder, forking):
    """The reports of the processes, by rank, and their outputs."""
    launcher = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    started = []
    try:
        for rank in range(SIZE):
            started.append(forking.Process(target=work, args=(rank, folder, launcher.port)))
            started[-1].start()
        wait_for(
            lambda: all(x.exitcode == 0 for x in started) or any(x.exitcode for x in started), 2
        )
    finally:
        for process in started:
            process.kill()
    outputs = [(folder / str(rank) / "output").read_text() for rank in range(SIZE)]
    assert [process.exitcode for process in started] == [0] * SIZE, "\n".join(outputs)
    reports = [torch.load(folder / f"report-{rank}", weights_only=False) for rank in range(SIZE)]
    return [report | {"output": output} for report, output in zip(reports, outputs, strict=True)]


def test_processes_share_tensors_and_objects_and_only_the_first_one_prints(reports):
    for report in reports:
        assert report["mean"] == [[[1, 1], [1, 1]], 37]
        assert report["any"] == [False, True, True, True, True]
        assert report["broadcast"] == {"by": 0}
        assert report["gathered"] == {0: "of 0", 1: "of 1", 2: "of 2"}
        assert report["timeout"] > timedelta(weeks=1)
    assert [report["output"].count("a line of output") for report in reports] == [1, 0, 0]
    assert [report["output"] for report in reports[1:]] == ["", ""]


def test_only_the_first_process_uses_its_folder_and_the_same_run_has_the_same_bytes(
    reports, folder
):
    assert {f"checkpoints/{name}" for name in reports[1]["files"]} == OF_ANOTHER_RUN
    assert not any(reports[1]["files"].values()) and reports[2]["files"] == {}
    again = folder / "0" / RunFolder(NOISY).path
    assert (again / "model-00003.pt").exists()
    assert results_in(again) == results_in(again.with_name(f"{again.name}.1"))


def test_a_signal_to_one_process_stops_all_of_them_after_the_same_step(reports, folder):
    """The signal comes in step 57, and at each tenth step the processes look for signals."""
    state = torch.load(folder / "interrupted" / RUN.state)
    assert state["training"]["step"] == 60
    for report in reports:
        message, status = report["interruption"]
        assert "step 60;" in message
        assert status == 128 + signal.SIGTERM
    assert "Resuming at step 60\n" in reports[0]["output"]


def test_without_noise_the_number_of_processes_changes_only_the_rounding(
    reports, folder, monkeypatch
):
    """So the mean gradient is that of the whole batch, and the rows are means, too.

    One process may resume a run of three.
    """
    monkeypatch.setattr(nns, "__path__", [*nns.__path__, str(NETWORKS)])
    remove_noise(monkeypatch)
    for name in ("alone", "interrupted"):
        monkeypatch.chdir(folder / name)
        train_small(SHARED, iter_save=50, resume=name == "interrupted")
    alone = RunFolder(SHARED, folder / "alone" / "checkpoints")
    for name in ("interrupted", "0"):
        other = RunFolder(SHARED, folder / name / "checkpoints")
        for step in (50, 100):
            model, same = (torch.load(run.model(step)) for run in (alone, other))
            for key, value in model.items():
                torch.testing.assert_close(same[key], value, atol=1e-5, rtol=0)
        for row, same in zip(read_metrics(alone), read_metrics(other), strict=True):
            assert row[:2] == same[:2]
            assert row.bounds == pytest.approx(same.bounds, rel=1e-4, nan_ok=True)


def test_a_process_that_ends_ends_the_others_with_a_sentence(reports):
    assert ["another process" in report.get("error", "") for report in reports] == [1, 1, 0]


# These networks wait as long as a file named "wait" exists, once a model is saved.
WAITING = """
import time
from pathlib import Path
from codebase.models.nns import tiny
from codebase.models.nns.tiny import Decoder

class Encoder(tiny.Encoder):
    def encode(self, x):
        while Path("wait").exists() and [*Path("checkpoints").glob("*/model-*.pt")]:
            time.sleep(0.01)
        return super().encode(x)
"""


def launch(arguments: list[str], folder: Path) -> None:
    """Be torchrun."""
    from torch.distributed.run import main

    os.chdir(folder)
    output = os.open("output", os.O_WRONLY | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    main(arguments)


def test_torchrun_restarts_killed_processes_and_their_run_goes_on(forking, small, tmp_path):
    script = copy_project(tmp_path / "project")
    (script.parent / "codebase/models/nns/waiting.py").write_text(WAITING)
    settings = Settings("waiting", 3, batch_size=200, iter_max=200, dataset="synthetic")
    run = RunFolder(settings, tmp_path / "checkpoints")
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", str(script), *small]
    options += ["--nn=waiting", "--batch_size=200", "--iter_max=200", "--iter_save=100"]
    (tmp_path / "wait").touch()
    launcher = forking.Process(target=launch, args=([*options, "--resume=1"], tmp_path))
    launcher.start()
    try:
        wait_for(lambda: run.model(100).exists() or launcher.exitcode is not None)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        (tmp_path / "wait").unlink()
        launcher.join(300)
    finally:
        launcher.kill()
    output = (tmp_path / "output").read_text()
    assert launcher.exitcode == 0, output
    assert "Resuming at step 100\n" in output
    assert output.count("NELBO: ") == 2
    assert run.saved_steps() == [100, 200]
