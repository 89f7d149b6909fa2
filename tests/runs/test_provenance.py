"""Runs know the files of code that trained them. test_tables.py has the runs of --compare."""

import json

import pytest
from training import RUN, TINY, load_small, train_small

from codebase.models import nns
from codebase.runs.provenance import git_commit
from codebase.system.errors import UserError


def test_a_run_is_not_resumed_with_a_changed_file_and_loaded_with_a_warning(
    place, monkeypatch, capsys
):
    train_small()
    load_small()
    assert "changed" not in capsys.readouterr().err
    (start,) = json.loads(RUN.settings_file.read_text())["starts"]
    modules = {"codebase.utils", "codebase.models.vae", "codebase.models.nns.tiny"}
    assert start["files"].keys() == modules

    networks = place / "tiny.py"
    networks.write_text("# another activation\n")
    monkeypatch.setattr(nns.tiny, "__file__", str(networks))
    with pytest.raises(UserError, match=r"^codebase\.models\.nns\.tiny changed"):
        train_small(TINY._replace(iter_max=60), resume=True)
    load_small()
    assert capsys.readouterr().err.startswith("Warning: codebase.models.nns.tiny changed")


def test_the_commit_is_known_unless_there_is_no_repository():
    assert len(git_commit() or 40 * "x") == 40
