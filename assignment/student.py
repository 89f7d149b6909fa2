"""Entry point of the process that runs a student's files, as part of a copy of this program."""

import json
import os
import sys
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import torch

from assignment import UTILS, VAE, VISUALIZE
from assignment.answers import Answers, Networks, collect_answers
from codebase.compute.processor import check_defaults
from codebase.settings import Settings
from codebase.system.errors import UserError, missing_in_student_file

MEMORY_GB, FILE_MB = 4, 16  # The limits of the process.


def answer_task(task: str, file: str, run: str) -> Answers:
    """The answers of the task's function, which is in that file, or those of a run's folder."""
    torch.manual_seed(0)
    networks = Networks(task)
    if task == "train":
        return collect_answers(task, partial(bounds_of_run, Path(run)), networks)
    if file == UTILS:
        function = getattr(import_module("codebase.utils"), task)
    else:
        model = import_module("codebase.models.vae").VAE(z_dim=2)
        model.enc = model.dec = networks
        function = partial(picture, model) if file == VISUALIZE else getattr(model, task)
    check_defaults()
    return collect_answers(task, function, networks)


def bounds_of_run(folder: Path) -> tuple[float, float, float]:
    """The bounds on the assignment's 100 test images after the last step of a run."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}")
    number = folder.name.rpartition("run=")[2]
    settings = Settings(run=int(number) if number.isdecimal() else 0)
    if folder.name != settings.name:
        raise UserError(f"{folder.name} does not have the assignment's settings")
    # These modules import the student's files, which may be unusable.
    run_folder = import_module("codebase.runs.folder").RunFolder(settings, folder.parent)
    if not (measured := import_module("codebase.runs.results").read_results(run_folder, 20_000)):
        raise UserError(f"{folder} has no results after 20,000 steps")
    return measured.subset[:3]


def picture(model: torch.nn.Module) -> torch.Tensor:
    """The brightness (height, width) of the picture that visualize_samples writes."""
    from matplotlib.image import imread  # This import is slow, and rarely needed.

    path = Path("a folder", "two hundred.png")
    path.parent.mkdir(exist_ok=True)
    import_module("codebase.visualize").visualize_samples(model, save_path=str(path))
    if not path.exists():
        raise UserError("no file is written to save_path")
    pixels = torch.from_numpy(imread(path).copy())
    path.unlink()
    return pixels.view(*pixels.shape[:2], -1)[..., :3].mean(-1)


def sentence_for(error: BaseException) -> str:
    """A sentence that describes an error in the student's files."""
    if isinstance(error, SystemExit):
        return f"it calls exit({'' if error.code is None else error.code})"
    if isinstance(error, MemoryError) or "allocate" in str(error):
        return f"it asks for more than {MEMORY_GB} GB of memory"
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, Exception) and (sentence := missing_in_student_file(error)):
        return sentence
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f.filename.endswith((UTILS, VAE, VISUALIZE))]
    place = f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""
    hint = "; z has two dimensions here, as z_dim says" if "multiplied" in str(error) else ""
    return f"it raises {type(error).__name__}{f': {error}'[:500]}{place}{hint}"


if __name__ == "__main__":
    with suppress(ImportError):  # Windows has no such limits.
        import resource

        limits = {resource.RLIMIT_DATA: MEMORY_GB << 30, resource.RLIMIT_FSIZE: FILE_MB << 20}
        for kind, most in limits.items():
            with suppress(ValueError):  # The limit may be lower already.
                resource.setrlimit(kind, (most, most))
    process = os.getpid()
    answer_file = Path("answer").resolve()
    try:
        answer: Answers | str = answer_task(*sys.argv[1:])
    except BaseException as error:
        answer = sentence_for(error)
    # The student's code may have deleted the folder, or forked a process that arrives here too.
    with suppress(OSError):
        if os.getpid() == process:
            answer_file.write_text(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)
