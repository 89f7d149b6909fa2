"""The program in a notebook, with a real kernel of Jupyter."""

import json
import re
import sys
from itertools import chain

import pytest
from conftest import ROOT

# The state that the program must not change: streams, environment, handlers, and PyTorch's modes.
# An optimizer imports torch._dynamo, which in PyTorch 2.6 adds a folder to sys.path.
STATE = """\
import os, signal, sys, torch, torch._dynamo

def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    modes = torch.get_num_threads(), torch.tensor([1e-39]).mul(1).item() > 0
    streams = sys.stdin, sys.stdout, sys.stderr
    return streams, dict(os.environ), handlers, os.getcwd(), sys.path[:], modes

before = state()
"""
# torchvision is slow, and only downloads need it.
SAME = 'print(before == state() and "torchvision" not in sys.modules)'
RUN = "%run run_vae.py --dataset synthetic --nn tiny --z 3 --iter_max 30"
CELLS = (STATE, RUN, "%run run_vae.py --help", "%run run_vae.py --seed 1", SAME)
WALK = json.loads((ROOT / "docs" / "walk.ipynb").read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def outputs(script):
    """The outputs of each of the cells above and of the walk, run in one kernel."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, CELLS)])
    for cell in WALK:  # fewer steps, on digits that need no network
        source = "".join(cell["source"]).replace("1000", "20").replace("mnist", "synthetic")
        source = source.replace("Settings(", 'Settings(dataset="synthetic", ')
        notebook.cells += [nbformat.v4.new_code_cell(source)] * (cell["cell_type"] == "code")
    nbclient.NotebookClient(notebook, timeout=300).execute(cwd=str(script.parent))
    yield [cell.outputs for cell in notebook.cells]
    sys.modules.pop("ipykernel", None)  # the client imports it, but this process is no notebook


def text(outputs, name="stdout"):
    """The text that a cell has printed."""
    streams = [each for each in outputs if each.output_type == "stream"]
    return "".join(stream.text for stream in streams if stream.name == name)


@pytest.mark.slow
def test_a_notebook_trains_and_its_session_does_not_change(outputs):
    _, trained, helped, wrong, same = outputs[: len(CELLS)]
    assert "NELBO: " in text(trained) and "30/30" in text(trained, "stderr")
    assert "IProgress" not in text(trained, "stderr")  # tqdm's warning without ipywidgets
    assert text(helped).startswith("usage: ")
    assert text(wrong, "stderr").count("\n") == 1  # a sentence alone
    assert text(same) == "True\n"


@pytest.mark.slow
def test_the_walk_shows_pictures_and_its_bound_by_hand_is_that_of_the_model(outputs):
    walk = outputs[len(CELLS) :]
    assert sum("image/png" in output.get("data", {}) for output in chain(*walk)) == 4
    by_hand, model = (
        [float(number) for number in re.findall(r"-?\d+\.\d+", line)]
        for line in text(walk[-1]).splitlines()
    )
    assert by_hand == pytest.approx(model, abs=0.02)  # two decimals are printed


def test_the_walk_is_stored_without_output():
    """A picture would be stored as text, in which any word may stand by chance."""
    assert not [output for cell in WALK for output in cell.get("outputs", [])]
