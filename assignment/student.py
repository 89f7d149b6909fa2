"""Calls a student's function, and describes its errors. Runs in a process of `helper.py`."""

import base64
import json
import os
import re
import sys
import traceback
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assignment.probe import Record, probe

FILES = {"codebase.utils": "utils.py", "codebase.models.vae": "vae.py"}
FILES["codebase.visualize"] = "visualize.py"
TYPES = {str(x): x for x in (torch.bool, torch.uint8, torch.int64, torch.float32, torch.float64)}
MEMORY_GB = 4  # the limit of the process
MODEL = "model-20000.pt"
WIDEST = 2_400  # pixels of a picture; wider ones are averaged


def pack(record: Record) -> str:
    """Tensors and strings as JSON, which nothing in it can execute."""
    packed: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Tensor):
            x = value.detach().cpu()
            x = (x if str(x.dtype) in TYPES else x.float()).contiguous()
            data = base64.b64encode(x.numpy().tobytes()).decode()
            packed[key] = [str(x.dtype), list(x.shape), data]
        else:
            packed[key] = value
    return json.dumps(packed)


def unpack(text: str) -> Record:
    """The record in a text of `pack`. Raises ValueError, TypeError or KeyError for other texts."""
    record: Record = {}
    for key, value in json.loads(text).items():
        if isinstance(value, str):
            record[key] = value
        else:
            kind, shape, data = value
            content, dtype = bytearray(base64.b64decode(data)), TYPES[kind]
            numbers = (
                torch.frombuffer(content, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            )
            record[key] = numbers.view(shape)
    return record


def answer(task: str, file: str, inputs: dict[str, Tensor]) -> Record:
    """What the student's function of a task does, or a sentence under the key "failure"."""
    stage = "import"
    try:
        module = import_module(file[:-3].replace("/", "."))
        note = restored_defaults()
        stage = "call"
        if task == "train":
            return measure_run(module.VAE, Path("..", MODEL), inputs["images"])
        utils = import_module("codebase.utils") if file != "codebase/utils.py" else module

        def get(enc: Any, dec: Any, name: str) -> Any:
            """A function of the student's, of a model with these networks if it is a method."""
            if name == "visualize_samples":
                return lambda: picture(module, model_with(enc, dec))
            owner = (
                utils
                if file == "codebase/utils.py" or hasattr(utils, name)
                else model_with(enc, dec)
            )
            return getattr(owner, name)

        called: set[str] = set()
        if task != "visualize_samples":  # there it would take seconds
            sys.setprofile(lambda frame, *_: called.add(frame.f_code.co_name))
        try:
            record = probe(task, get, inputs)
        finally:
            sys.setprofile(None)
        return record | {"called": " ".join(called), "note": note}
    except BaseException as error:
        return {"failure": sentence_for(error, stage), "stage": stage}


def restored_defaults() -> str:
    """Restore PyTorch's defaults; return the program's sentence if the file changed them."""
    try:
        import_module("codebase.compute.processor").check_defaults()
    except Exception as error:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device("cpu")
        return f"the program refuses this file: {error}"
    return ""


@lru_cache(maxsize=1)
def model_with(enc: Any, dec: Any) -> Any:
    """The student's model with these networks."""
    model = import_module("codebase.models.vae").VAE(z_dim=enc.m.shape[1])
    model.enc, model.dec = enc, dec
    return model


def picture(module: Any, model: Any) -> Tensor:
    """The picture (height, width, colours) that visualize_samples writes for the program."""
    from matplotlib import rcParams
    from matplotlib.image import imread

    # Two hundred axes with ticks would take many seconds.
    rcParams["xtick.bottom"] = rcParams["xtick.labelbottom"] = False
    rcParams["ytick.left"] = rcParams["ytick.labelleft"] = False
    path = Path("a folder", "two hundred.png")
    path.parent.mkdir(exist_ok=True)
    module.visualize_samples(model, save_path=path, title="the title")
    if not path.exists():
        raise Failure("no file is written to save_path")
    pixels = torch.from_numpy(imread(path).copy())
    path.unlink()
    pixels = pixels[..., None] if pixels.dim() == 2 else pixels[..., :3]
    if factor := max(pixels.shape) // WIDEST:
        x = pixels.permute(2, 0, 1)[None].float()
        pixels = torch.nn.functional.avg_pool2d(x, factor + 1)[0].permute(1, 2, 0)
    return (255 * pixels).round().byte() if pixels.is_floating_point() else pixels


def measure_run(vae: Any, path: Path, images: Tensor) -> Record:
    """The bounds of a trained model on images (n, 784), over 100 passes with fresh noise."""
    model = vae(z_dim=10)
    import_module("codebase.runs.checkpoint").load_model(model, path)
    with torch.no_grad():
        bounds = [torch.stack([*model.negative_elbo_bound(images)]) for _ in range(100)]
    return {"bounds": torch.stack(bounds).mean(0)}


class Failure(Exception):
    """A sentence about a student's function."""


def sentence_for(error: BaseException, stage: str) -> str:
    """A sentence that says what to do about an error in the student's files."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if "/codebase/" in f.filename.replace(os.sep, "/")]
    last = theirs[-1] if theirs else None
    place = f" ({Path(last.filename).name}, line {last.lineno})" if last else ""
    text = " ".join(str(error).split())[:150]
    at_import = (
        stage == "import" and bool(last) and not isinstance(error, ImportError | SyntaxError)
    )
    advice = '; nothing may run at import: put it below `if __name__ == "__main__":`' * at_import
    if type(error).__name__ in ("Failure", "UserError"):
        return text
    if isinstance(error, SystemExit):
        return f"it calls exit({'' if error.code is None else error.code}){place}{advice}"
    if isinstance(error, MemoryError) or "can't allocate" in text:
        return f"it asks for more than {MEMORY_GB} GB of memory{place}"
    if isinstance(error, NotImplementedError) and last:
        return f"{last.name} is not written yet{f': {text}' if text else ''}{place}"
    if isinstance(error, ModuleNotFoundError) and place:
        name = str(error.name)
        if name.split(".")[0] in ("codebase", "submission", "assignment"):
            return f"{name} is not a part of this hand-out: delete that import{place}"
        return f"{name} is not installed here and not needed: delete that import{place}"
    if isinstance(error, AttributeError) and (not last or "/assignment/" in frames[-1].filename):
        owner = getattr(error.obj, "__name__", type(error.obj).__module__)
        if owner in FILES:
            return f"{FILES[owner]} has no {error.name}"
    if re.search(r"\bcuda\b|nvidia", text, re.IGNORECASE):
        return f"the check has no GPU: use the device of m, m.device, or of x{place}"
    if "unexpected keyword argument" in text and place == "":
        return f"the program calls it with save_path and title: {text}"
    hint = "; z has two dimensions here, as z_dim says" * ("multiplied" in text)
    return f"it raises {type(error).__name__}{f': {text}' if text else ''}{place}{hint}{advice}"
