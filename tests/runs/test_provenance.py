"""Runs know the files of code that trained them."""

import json

import pytest

from codebase.models import nns
from codebase.runs.folder import RunFolder
from codebase.settings import Settings

RUN = RunFolder(Settings("tiny", 3, dataset="synthetic"))


@pytest.mark.slow
def test_a_changed_file_is_not_resumed_and_not_averaged(run_vae, small, tmp_path, monkeypatch):
    assert run_vae(*small).returncode == 0
    assert "changed" not in run_vae(*small, "--train", 0).stderr
    (start,) = json.loads(RUN.settings_file.read_text())["starts"]
    modules = {"codebase.utils", "codebase.models.vae", "codebase.models.nns.tiny"}
    assert start["files"].keys() == modules
    assert len(start["commit"] or 40 * "x") == 40

    networks = tmp_path / "tiny.py"
    networks.write_text("# another activation\n")
    monkeypatch.setattr(nns.tiny, "__file__", str(networks))
    resumed = run_vae(*small, "--iter_max", 60, "--resume", 1)
    loaded = run_vae(*small, "--train", 0)
    assert (resumed.returncode, loaded.returncode) == (1, 0)
    for finished in (resumed, loaded):
        message = finished.stderr.splitlines()[-1]
        assert "codebase.models.nns.tiny changed" in message and "codebase.utils" not in message

    assert run_vae(*small, "--run", 1).returncode == 0
    table = run_vae("--compare", 1).stdout
    assert [line.split(" | ")[2] for line in table.splitlines() if "z=3" in line] == ["1", "1"]
