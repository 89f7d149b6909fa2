"""Processes that share batches over Gloo on the CPU, as torchrun starts them."""

import os
import shutil
import signal
import sys
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from conftest import NETWORKS, copy_project
from launching import enter, run_script
from training import CPU, TINY, files_in, results_in, signal_after, train_small

from codebase import train, utils
from codebase.compute.processes import connected
from codebase.models import nns
from codebase.runs.folder import RunFolder
from codebase.runs.results import read_metrics
from codebase.system.errors import Interrupted, UserError

IS_LINUX = sys.platform == "linux"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not IS_LINUX, reason="Gloo of Linux")]
SHARED = TINY._replace(batch_size=15, iter_max=100)
NOISY, DIVERGING = SHARED._replace(run=1, iter_max=3), SHARED._replace(run=2, lr=1e30)
RUN = RunFolder(SHARED)


def remove_noise(patch: pytest.MonkeyPatch) -> None:
    """Make the pixels and the latent deterministic."""
    patch.setattr(train, "binarize", lambda images: images.gt(127).float())
    patch.setattr(utils, "sample_gaussian", lambda m, v: m)


def work(rank: int, folder: Path, port: int) -> None:
    """Be one of three processes, which share no folder, and check what each one sees."""
    (folder / str(rank)).mkdir()
    enter(folder / str(rank), rank, 3, port)
    nns.__path__.append(str(NETWORKS))
    patch, connect = pytest.MonkeyPatch(), dist.init_process_group

    def watched(*arguments, timeout, **options):
        assert timeout > timedelta(weeks=1)
        connect(*arguments, timeout=timeout, **options)

    patch.setattr(dist, "init_process_group", watched)
    # The last process ends before the others, which learn of it.
    end = nullcontext() if rank == 2 else pytest.raises(UserError, match="another process")
    with end, connected(CPU) as processes:
        print("a line of output", flush=True)
        tensors = [torch.tensor([[rank], [2.0]]), torch.tensor(10.0**rank)]
        processes.all_reduce_mean(tensors)
        assert [x.tolist() for x in tensors] == [[[1], [2]], 37]
        assert [processes.any(rank in who) for who in ([], [2], [0, 1, 2])] == [False, True, True]
        assert processes.broadcast({"by": rank}) == {"by": 0}
        assert processes.gather({rank: -rank}) == {0: 0, 1: -1, 2: -2}
        if rank == 1:  # only the first process may read, delete or move such files
            RUN.path.mkdir(parents=True)
            for name in (".1.tmp", "model-00001.pt", RUN.state.name):
                (RUN.path / name).touch()
        before = files_in(Path("checkpoints"))
        for _ in range(2):  # the second run moves the first one aside
            train_small(NOISY, processes=processes)

        # The signal comes in step 57, and at each tenth step the processes look for signals.
        remove_noise(patch)
        stop = pytest.raises(Interrupted, match="step 60;")
        with signal_after(57 if rank == 2 else 0), stop as caught:
            train_small(SHARED, iter_save=50, processes=processes)
        assert caught.value.status == 128 + signal.SIGTERM
        if rank == 0:
            shutil.copytree("checkpoints", "../interrupted/checkpoints")
        train_small(SHARED, iter_save=50, processes=processes, resume=True)
        with pytest.raises(UserError, match="diverged"):
            train_small(DIVERGING, processes=processes, seconds_between_states=0)
        assert rank == 0 or files_in(Path("checkpoints")) == before
        if rank < 2:
            train_small(SHARED, processes=processes)
    sys.stdout.flush()
    os._exit(0)  # as run_vae.py does under torchrun


@pytest.fixture(scope="module")
def folder(tmp_path_factory, forking):
    """A folder with a folder for each of the processes, which have ended."""
    folder = tmp_path_factory.mktemp("processes")
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    started = []
    for rank in range(3):
        started.append(forking.Process(target=work, args=(rank, folder, store.port), daemon=True))
        started[-1].start()
    for process in started:
        process.join(300)
    outputs = [path.read_text() for path in folder.glob("*/output-*")]
    assert [process.exitcode for process in started] == [0, 0, 0], "\n".join(outputs)
    return folder


def test_processes_share_work_stop_together_and_only_the_first_one_prints(folder):
    """The processes check what they share. The same run has the same bytes again."""
    outputs = [(folder / f"{rank}/output-{rank}").read_text() for rank in range(3)]
    assert outputs[0].count("a line of output") == 1
    assert "Resuming at step 60\n" in outputs[0] and outputs[1:] == ["", ""]
    again = folder / "0" / RunFolder(NOISY).path
    assert results_in(again) == results_in(again.with_name(f"{again.name}.1"))


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
    options = ["--standalone", "--nproc-per-node=2", "--max-restarts=1", str(script), *small]
    options += ["--nn=dying", "--iter_max=60", "--iter_save=30", "--resume=1"]
    torchrun = Path(dist.__file__).with_name("run.py")
    launcher = forking.Process(target=run_script, args=(torchrun, options, tmp_path, 0, 1, 0))
    launcher.start()
    launcher.join(300)
    launcher.terminate()  # does nothing after it has ended
    output = (tmp_path / "output-0").read_text()
    assert launcher.exitcode == 0, output
    assert "Resuming at step 30\n" in output
    assert output.count("NELBO: ") == 2
    assert len([*tmp_path.glob("checkpoints/*/model-*.pt")]) == 2
