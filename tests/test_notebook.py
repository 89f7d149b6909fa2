"""The program in a notebook, with a real kernel of Jupyter."""

import re
import sys

import nbclient
import nbformat
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

SMALL = "--dataset synthetic --nn tiny --z 3 --iter_max"
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
# Interrupts the kernel, like the notebook's button, once the run has saved a model.
INTERRUPTED = f"""\
import pathlib, run_vae, threading, time

def interrupt():
    while not [*pathlib.Path("checkpoints").glob("*run=0001/model-*.pt")]:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt).start()
print("status", run_vae.main("{SMALL} 1000000 --iter_save 100 --run 1".split()))
"""
WALK = ROOT / "docs" / "walk.ipynb"
SHOWN = """\
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples
visualize_samples(VAE())
"""


@pytest.fixture
def cells(script, tmp_path):
    """Run cells in the folder of a copy of the project, and return the outputs of each."""

    def cells(*sources):
        notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
        client = nbclient.NotebookClient(notebook, timeout=300, allow_errors=True)
        client.execute(cwd=str(script.parent))
        return [cell.outputs for cell in notebook.cells]

    yield cells
    sys.modules.pop("ipykernel", None)  # the client imports it, but this process is no notebook


def text(outputs, name="stdout"):
    """The text that a cell has printed."""
    streams = [each for each in outputs if each.output_type == "stream"]
    return "".join(stream.text for stream in streams if stream.name == name)


def test_a_notebook_trains_and_its_session_does_not_change(cells):
    _, trained, same, interrupted, again, shown, helped, wrong, last = cells(
        STATE,
        f"%run run_vae.py {SMALL} 30",
        "print(before == state())",
        INTERRUPTED,
        "print(before == state())",
        SHOWN,
        "%run run_vae.py --help",
        "%run run_vae.py --seed 1",
        "print(before == state())",
    )
    assert "NELBO: " in text(trained) and "30/30" in text(trained, "stderr")
    assert text(same) == text(again) == text(last) == "True\n"
    assert "status 130" in text(interrupted)
    assert "--resume 1" in text(interrupted, "stderr")
    assert [each.data["image/png"] for each in shown if each.output_type == "display_data"]
    assert text(helped).startswith("usage: ")
    assert text(wrong, "stderr").count("\n") == 1  # a sentence alone
    assert "IProgress" not in text(trained, "stderr")  # tqdm's warning without ipywidgets
    errors = [each for outputs in (trained, interrupted, shown, helped, wrong) for each in outputs]
    assert not [each for each in errors if each.output_type == "error"]


def test_the_walk_runs_and_its_bound_by_hand_is_that_of_the_model(script):
    notebook = nbformat.read(WALK, 4)
    for cell in notebook.cells:  # fewer steps, on digits that need no network
        cell.source = cell.source.replace("1000", "20").replace("mnist", "synthetic")
        cell.source = cell.source.replace("Settings(", 'Settings(dataset="synthetic", ')
    nbclient.NotebookClient(notebook, timeout=300).execute(cwd=str(script.parent))
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 4
    by_hand, model = (
        [float(number) for number in re.findall(r"-?\d+\.\d+", line)]
        for line in text(notebook.cells[-1].outputs).splitlines()
    )
    assert by_hand == pytest.approx(model, rel=0.01)


def test_the_walk_is_stored_without_output_except_small_pictures():
    cells = nbformat.read(WALK, 4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} <= {"display_data"}
    assert WALK.stat().st_size < 300_000
