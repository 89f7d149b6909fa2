"""The program in a notebook: in a real kernel, as Jupyter and Colab have one."""

import nbclient
import nbformat
import pytest

pytestmark = pytest.mark.slow

SMALL = "--dataset synthetic --nn tiny --z 3 --iter_max"
# What must be as it was after the program: streams, environment, handlers, and PyTorch's modes.
# An optimizer imports torch._dynamo, which in PyTorch 2.6 adds a folder of its own to sys.path.
STATE = """\
import os, signal, sys, torch, torch._dynamo

def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    modes = torch.get_num_threads(), torch.tensor([1e-39]).mul(1).item() > 0
    streams = sys.stdin, sys.stdout, sys.stderr
    return streams, dict(os.environ), handlers, os.getcwd(), sys.path[:], modes

before = state()
"""
# Presses the button that interrupts a kernel, which is Ctrl-C, once the run has saved a model.
INTERRUPTED = f"""\
import pathlib, run_vae, threading, time

def press():
    while not [*pathlib.Path("checkpoints").glob("*run=0001/model-*.pt")]:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press).start()
print("status", run_vae.main("{SMALL} 1000000 --iter_save 100 --run 1".split()))
"""
SHOWN = """\
from codebase.models.vae import VAE
from codebase.visualize import visualize_samples
visualize_samples(VAE())
"""


@pytest.fixture
def cells(script, tmp_path):
    """Run cells in a kernel whose folder has a copy of the project; give what each has shown."""

    def cells(*sources):
        notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, sources)])
        client = nbclient.NotebookClient(notebook, timeout=300, allow_errors=True)
        client.execute(cwd=str(script.parent))
        return [cell.outputs for cell in notebook.cells]

    return cells


def text(outputs, name="stdout"):
    """What a cell has printed."""
    streams = [each for each in outputs if each.output_type == "stream"]
    return "".join(stream.text for stream in streams if stream.name == name)


def test_a_notebook_trains_shows_and_is_as_it_was(cells):
    _, trained, same, interrupted, again, shown, helped, last = cells(
        STATE,
        f"%run run_vae.py {SMALL} 30",
        "print(before == state())",
        INTERRUPTED,
        "print(before == state())",
        SHOWN,
        "%run run_vae.py --help",
        "print(before == state())",
    )
    assert "NELBO: " in text(trained) and "30/30" in text(trained, "stderr")
    assert text(same) == text(again) == text(last) == "True\n"
    assert "status 130" in text(interrupted)
    assert "the same command with --resume 1 goes on from there" in text(interrupted, "stderr")
    assert [each.data["image/png"] for each in shown if each.output_type == "display_data"]
    assert text(helped).startswith("usage: ")
    errors = [each for outputs in (trained, interrupted, shown, helped) for each in outputs]
    assert not [each for each in errors if each.output_type == "error"]
