"""Calls a student's function, and describes its errors, in a process of its own."""

import os
import re
import sys
import traceback
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from textwrap import shorten
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assignment import FILES, UTILS, VAE, VISUALIZE
from assignment.guard import MEMORY_GB, enter
from assignment.inputs import Decoder, Encoder, Inputs, ask
from assignment.probe import Record, probe

MODEL = "model-20000.pt"
WIDEST = 2_400  # pixels of a picture; wider ones are thinned out
PLOTTING = ["matplotlib.backends.backend_agg", "matplotlib.image", "matplotlib.pyplot"]
AT_IMPORT = '; nothing may run at import: put it below `if __name__ == "__main__":`'


def answer(folder: Path, task: str, file: str, seed: int, seconds: float) -> None:
    """Write what the student's function does, or a sentence under the key "failure", and exit."""
    torch.set_num_threads(1)  # More threads would slow such small tensors down.
    inputs = ask(task, seed)
    for name in PLOTTING if file == VISUALIZE else ():
        import_module(name)  # Matplotlib may write a list of fonts, which is denied later.
    enter(folder, seconds)
    sys.argv = [file]
    module = None
    try:
        module = import_module(module_name(file))
        note = restored_defaults()
        record = call(task, module, inputs) | {"note": note}
        np.savez("answer.npz", **{key: as_doubles(value) for key, value in record.items()})
    except BaseException as error:
        np.savez("answer.npz", failure=sentence_for(error, at_import=module is None))
    os._exit(0)


def as_doubles(value: Any) -> Any:
    """The same with doubles for floating-point types, of which NumPy does not have all."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if is_float else value


def module_name(file: str) -> str:
    """The name of the module in a file of the program."""
    return file.removesuffix(".py").replace("/", ".")


def call(task: str, module: ModuleType, inputs: Inputs) -> Record:
    """The tensors that come from the student's function of a task."""
    if task == "train":
        return measure_run(Path("..", MODEL), inputs["images"])
    utils = import_module(module_name(UTILS))

    def get(enc: Encoder, dec: Decoder, name: str) -> Any:
        """A function of the student's, of a model with these networks if it is a method."""
        if name == "visualize_samples":
            return lambda: picture(module, model_with(enc, dec))
        is_in_utils = module is utils or hasattr(utils, name)
        return getattr(utils if is_in_utils else model_with(enc, dec), name)

    called: set[str] = set()
    if task != "visualize_samples":  # Plotting makes many calls, and recording them takes seconds.
        sys.setprofile(lambda frame, *_: called.add(frame.f_code.co_name))
    record = probe(task, get, inputs)
    sys.setprofile(None)
    return record | {"called": " ".join(called)}


def restored_defaults() -> str:
    """Restore PyTorch's defaults; return the program's sentence if a file has changed them."""
    try:
        import_module("codebase.compute.processor").check_defaults()
    except Exception as error:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
        return f"the program refuses this file: {error}"
    return ""


@lru_cache(maxsize=1)
def model_with(enc: Encoder, dec: Decoder) -> Any:
    """The model with these networks; in a process of the student's files it is theirs."""
    model = import_module(module_name(VAE)).VAE(z_dim=enc.m.shape[1])
    model.enc, model.dec = enc, dec
    return model


def picture(module: ModuleType, model: Any) -> Tensor:
    """The picture (height, width, colours) that visualize_samples writes for the program."""
    from matplotlib import rcParams
    from matplotlib.image import imread

    # Two hundred axes with ticks would take many seconds.
    for part in ("xtick.bottom", "xtick.labelbottom", "ytick.left", "ytick.labelleft"):
        rcParams[part] = False
    path = Path("a folder", "two hundred.png")
    path.parent.mkdir(exist_ok=True)
    module.visualize_samples(model, save_path=path, title="the title")
    if not path.exists():
        raise Failure("no file is written to save_path")
    pixels = torch.from_numpy(imread(path).copy())
    path.unlink()
    pixels = pixels[..., None] if pixels.dim() == 2 else pixels[..., :3]
    step = 1 + max(pixels.shape) // WIDEST
    pixels = pixels[::step, ::step]
    return (255 * pixels).round().byte() if pixels.is_floating_point() else pixels


def measure_run(path: Path, images: Tensor) -> Record:
    """The bounds of a trained model on images (n, 784), over 100 passes with fresh noise."""
    model = import_module(module_name(VAE)).VAE(z_dim=10)
    import_module("codebase.runs.checkpoint").load_model(model, path)
    with torch.no_grad():
        bounds = [torch.stack([*model.negative_elbo_bound(images)]) for _ in range(100)]
    return {"bounds": torch.stack(bounds).mean(0)}


class Failure(Exception):
    """A sentence about a student's function."""


def sentence_for(error: BaseException, at_import: bool) -> str:
    """A sentence that says what to do about an error in the student's files."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if "/codebase/" in f.filename.replace(os.sep, "/")]
    last = theirs[-1] if theirs else None
    place = f" ({Path(last.filename).name}, line {last.lineno})" if last else ""
    text = shorten(str(error), 150, placeholder=" ...")
    reason = f": {text}" if text else ""
    name = str(getattr(error, "name", ""))
    is_syntax = isinstance(error, ImportError | SyntaxError)
    advice = AT_IMPORT if at_import and last and not is_syntax else ""
    if type(error).__name__ in ("Failure", "UserError"):
        return text
    if isinstance(error, SystemExit):
        return f"it calls exit({'' if error.code is None else error.code}){place}{advice}"
    if isinstance(error, MemoryError) or "can't allocate" in text:
        return f"it asks for more than {MEMORY_GB} GB of memory{place}"
    if isinstance(error, NotImplementedError) and last:
        return f"{last.name} is not written yet{reason}{place}"
    if isinstance(error, ModuleNotFoundError) and place:
        is_ours = name.split(".")[0] in ("codebase", "submission", "assignment")
        problem = "not a part of this hand-out" if is_ours else "not installed here and not needed"
        return f"{name} is {problem}: delete that import{place}"
    if isinstance(error, AttributeError) and not last:
        owner = getattr(error.obj, "__name__", type(error.obj).__module__)
        files = {module_name(file): Path(file).name for file in FILES}
        if owner in files:
            return f"{files[owner]} has no {name}"
    if re.search(r"\bcuda\b|nvidia", text, re.IGNORECASE):
        return f"the check has no GPU: use the device of m, m.device, or of x{place}"
    hint = "; z has two dimensions here, as z_dim says" if "multiplied" in text else ""
    return f"it raises {type(error).__name__}{reason}{place}{hint}{advice}"
