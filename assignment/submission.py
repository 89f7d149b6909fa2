"""Finds the files of a hand-in as students send them: in folders, archives and notebooks."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from assignment import TASKS, UTILS, VAE, VISUALIZE
from assignment.archives import Reader
from assignment.helpers import COPY, add_helpers
from assignment.sources import (
    EXPORTED,
    code_of_notebook,
    decode,
    defined_names,
    definitions,
    functions_in,
    imports,
    parsed,
    without_magics,
)
from codebase.system.errors import UserError

# The names that other code needs from each file.
NAMES = {
    UTILS: {"sample_gaussian", "gaussian_parameters", "kl_normal", "log_normal", "duplicate"}
    | {"log_bernoulli_with_logits", "log_mean_exp"},
    VAE: {"VAE"},
    VISUALIZE: {"visualize_samples"},
}
# Names such as "utils.py", "Utils (1).py", "vae_final.py.txt", "doejane_12345_67890_utils-1.py".
LIKE = {
    file: re.compile(rf"(.*[\W_])?{Path(file).stem}([\W_].*)?\.(py|pyw|txt)", re.IGNORECASE)
    for file in NAMES
}
PYTHON = re.compile(r"\.(py|pyw|ipynb)(\.txt)?$", re.IGNORECASE)
MODEL = re.compile(r"([^/]+)/model-20000\.pt$")
RUN = re.compile(r"model=vae_z=10_run=\d{4,}")


class Submission(NamedTuple):
    """The files of one hand-in.

    Args:
        files: the texts of the tasks' files that were sent, by names such as "codebase/utils.py".
        helpers: the texts of other modules that they import, by their paths in the program.
        notes: sentences about the files that were read, and about those that were not.
        runs: the final models of trained runs, by the names of their folders.
    """

    files: dict[str, str]
    helpers: dict[str, str]
    notes: list[str]
    runs: dict[str, bytes]

    @property
    def run(self) -> bytes | None:
        """The model of the first run with the assignment's settings."""
        names = (name for name in sorted(self.runs) if RUN.fullmatch(name))
        return next((self.runs[name] for name in names), None)


class Candidate(NamedTuple):
    """A text that may be one of the tasks' files. In order, the best is the first."""

    preference: tuple[object, ...]
    path: str
    text: str
    is_script: bool  # a notebook or another program, of which only definitions are used
    written: set[str]  # functions of the tasks
    empty: set[str]  # functions of the tasks


def find(path: Path, runs: bool = False) -> Submission:
    """Find the files of a hand-in, which is a folder, an archive or a file.

    Args:
        runs: whether to read the models of trained runs, too.

    Raises:
        UserError: there is nothing to check, or an archive is not suitable.
    """
    return find_in([("" if path.is_dir() else path.name, path.resolve())], runs)


def find_in(parts: Iterable[tuple[str, Path]], runs: bool = False) -> Submission:
    """Find the files of a hand-in that consists of several parts, each with a name and a path."""
    texts, models, notes = _read(parts, runs)
    candidates = {file: sorted(_candidates(file, texts)) for file in NAMES}
    files, origins = dict[str, str](), dict[str, list[str]]()
    for file in filter(candidates.get, NAMES):
        files[file], origins[file] = _combined(file, candidates[file])
    if not files:
        raise UserError(" ".join(["There is no utils.py, vae.py or visualize.py.", *notes]))
    helpers = dict[str, str]()  # the path at which each was found
    for file, text in files.items():
        add_helpers(file, text, texts, helpers)
    used = [path for paths in [*origins.values(), helpers.values()] for path in paths]
    missing = [Path(file).name for file in NAMES if file not in files]
    read = f"Read: {_listed(dict.fromkeys(used))}."
    notes.insert(0, f"{read} Not found: {_listed(missing)}." if missing else read)
    for file in files:
        unequal = [each.path for each in candidates[file] if each.text != candidates[file][0].text]
        if others := [path for path in unequal if path not in used]:
            notes.append(f"{_listed(origins[file])} was read, and not {_listed(others)}.")
    return Submission(files, {file: texts[path] for file, path in helpers.items()}, notes, models)


def _read(
    parts: Iterable[tuple[str, Path]], runs: bool
) -> tuple[dict[str, str], dict[str, bytes], list[str]]:
    """The texts of Python files and notebooks by path, the models of runs, and notes."""

    def is_wanted(path: str) -> bool:
        name = path.rpartition("/")[2]
        is_code = PYTHON.search(name) or any(like.fullmatch(name) for like in LIKE.values())
        return bool(is_code or (runs and MODEL.search(path)))

    reader = Reader(is_wanted)
    for name, path in parts:
        reader.add(name, path)
    texts, models = dict[str, str](), dict[str, bytes]()
    for name, content in reader.files.items():
        if match := MODEL.search(name):
            models[match[1]] = content
        elif ".ipynb" in name.lower():
            texts[name], written = code_of_notebook(content)
            texts |= {f"{name}/{file}": text for file, text in written.items()}
        else:
            text = decode(content)
            texts[name] = without_magics(text) if EXPORTED.search(text) else text
    return texts, models, reader.notes


def _combined(file: str, candidates: list[Candidate]) -> tuple[str, list[str]]:
    """The text of a file, and the paths of the best candidate and of others that complete it."""
    best, *others = candidates
    text = definitions(best.text, NAMES[file]) if best.is_script else best.text
    lacking, paths = set(best.empty), [best.path]
    if best.is_script:
        lacking |= {task.name for task in TASKS if task.file == file} - best.written
    for other in others:
        if lacking & other.written:  # What the best one has may be older here.
            text += "\n\n" + definitions(other.text, NAMES[VAE] if file == VAE else lacking)
            lacking -= other.written
            paths.append(other.path)
    return text, paths


def _candidates(file: str, texts: dict[str, str]) -> Iterator[Candidate]:
    """The texts that may be this file of the tasks."""
    tasks = {task.name for task in TASKS if task.file == file}
    for path, text in texts.items():
        name = path.rpartition("/")[2]
        is_like, is_exact = bool(LIKE[file].fullmatch(name)), name.lower() == Path(file).name
        if not is_exact and not any(each in text for each in NAMES[file]):
            continue
        is_script = not is_like or bool(EXPORTED.search(text))
        defines, functions = is_like, dict[str, str]()
        if tree := parsed(text):  # Otherwise, the check names the line that is not Python.
            imported = {each.rpartition(".")[2] for each in imports(tree, file) if is_exact}
            defines = bool(NAMES[file] & defined_names(tree) or {"*", *NAMES[file]} & imported)
            functions = functions_in(tree, tasks)
        if defines or is_exact:
            written = {name for name in functions if functions[name]}
            copy = COPY.search(name)
            number = int(copy[1] or copy[2] or 0) if copy else 0
            place = (not path.lower().endswith(file), path.count("/"), not is_exact, -number)
            preference = (not defines, is_script, -len(written), *place)
            yield Candidate(preference, path, text, is_script, written, {*functions} - written)


def _listed(names: Iterable[str]) -> str:
    """The first names, and the number of the others."""
    first, rest = [*names][:8], [*names][8:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")
