"""Finds the files of a hand-in as students send them: in folders, archives and notebooks."""

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE
from assignment.archives import Reader
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
COPY = re.compile(r"(?: ?\((\d+)\)|-(\d+))?\.pyw?(\.txt)?$", re.IGNORECASE)  # as "name (1).py"
MODEL = re.compile(r"([^/]+)/model-20000\.pt$")
RUN = re.compile(r"model=vae_z=10_run=\d{4,}")
GIVEN = ROOT / "assignment" / "given.json"  # the sums of the hand-out's files, only in a hand-out


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

    def is_wanted(path: str) -> bool:
        name = path.rpartition("/")[2]
        is_code = PYTHON.search(name) or any(like.fullmatch(name) for like in LIKE.values())
        return bool(is_code or (runs and MODEL.search(path)))

    reader = Reader(is_wanted)
    for name, path in parts:
        reader.add(name, path)
    texts, models, notes = dict[str, str](), dict[str, bytes](), reader.notes
    for name, content in reader.files.items():
        if match := MODEL.search(name):
            models[match[1]] = content
        elif ".ipynb" in name.lower():
            texts[name], written = code_of_notebook(content)
            texts |= {f"{name}/{file}": text for file, text in written.items()}
        else:
            text = decode(content)
            texts[name] = without_magics(text) if EXPORTED.search(text) else text
    files, used = dict[str, str](), list[str]()
    for file in NAMES:
        if candidates := sorted(_candidates(file, texts)):
            files[file], paths = _combined(file, candidates)
            unequal = [each.path for each in candidates if each.text != candidates[0].text]
            if others := [path for path in unequal if path not in paths]:
                notes.append(f"{_listed(paths)} was read, and not {_listed(others)}.")
            used += paths
    if not files:
        raise UserError(" ".join(["There is no utils.py, vae.py or visualize.py.", *notes]))
    helpers = dict[str, str]()
    for file, text in files.items():
        _add_helpers(file, text, texts, helpers)
    missing = [Path(file).name for file in NAMES if file not in files]
    found = f"Read: {_listed(dict.fromkeys([*used, *helpers]))}."
    notes.insert(0, f"{found} Not found: {_listed(missing)}." if missing else found)
    return Submission(files, helpers, notes, models)


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


@lru_cache
def given_sum(file: str) -> str:
    """The sum of a file as it was handed out, or "" if the hand-out has no such file."""
    if GIVEN.exists():
        return json.loads(GIVEN.read_text()).get(file, "")
    return sum_of((ROOT / file).read_bytes()) if (ROOT / file).is_file() else ""


def sum_of(content: bytes) -> str:
    """The sum of a text, whatever its encoding and line ends."""
    return sha256(decode(content).encode()).hexdigest()


def _add_helpers(file: str, text: str, texts: dict[str, str], helpers: dict[str, str]) -> None:
    """Add the modules that a file imports, and those that these import, if they were sent."""
    tree = parsed(text)
    for name in sorted(imports(tree, file)) if tree else ():
        parts = name.split(".")
        stems = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        for target in [f"{stem}{ending}" for stem in stems for ending in ("/__init__.py", ".py")]:
            given, is_package = given_sum(target), target.endswith("__init__.py")
            # Where students send single files, a helper's folder is not known.
            ending = target if given or is_package else target.rpartition("/")[2]
            sent = [path for path in texts if f"/{COPY.sub('.py', path)}".endswith(f"/{ending}")]
            if sent and target not in {*helpers, *NAMES}:
                best = min(sent, key=lambda path: (not path.endswith(target), path.count("/")))
                if sum_of(texts[best].encode()) != given:
                    helpers[target] = texts[best]
                    _add_helpers(target, texts[best], texts, helpers)
            if (sent or given) and not is_package:
                break  # What follows are names in this module.


def _listed(names: Iterable[str]) -> str:
    """The first names, and the number of the others."""
    first, rest = [*names][:8], [*names][8:]
    return ", ".join(first) + (f" and {len(rest)} more" if rest else "")
