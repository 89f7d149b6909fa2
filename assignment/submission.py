"""Finds the files of a hand-in as students send them."""

import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE
from assignment.archives import on_disk, read_files
from assignment.sources import (
    EXPORTED,
    MAGIC,
    code_of_notebook,
    decode,
    definitions,
    functions_in,
    imports,
    parsed,
    sum_of,
)  # fmt: skip
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
    file: re.compile(rf"(.*[\W_])?{Path(file).stem}([\W_].*)?\.(py|txt)", re.IGNORECASE)
    for file in NAMES
}
PYTHON = re.compile(r"\.(py|ipynb)(\.txt)?$", re.IGNORECASE)
COPY = re.compile(r"(?: ?\((\d+)\)|-(\d+))?\.py(\.txt)?$", re.IGNORECASE)  # as "name (1).py"
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

    is_script: bool  # a notebook or another program, of which only definitions are used
    unwritten: int  # functions of the tasks
    place: tuple[object, ...]
    path: str
    text: str
    functions: dict[str, str]  # see functions_in


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
        is_like = any(like.fullmatch(path.rpartition("/")[2]) for like in LIKE.values())
        return bool(is_like or PYTHON.search(path) or (runs and MODEL.search(path)))

    texts, models, notes = dict[str, str](), dict[str, bytes](), list[str]()
    for path, content in read_files(on_disk(parts), is_wanted):
        if content is None:
            notes.append(f"{path} is a link and was not read.")
        elif match := MODEL.search(path):
            models[match[1]] = content
        elif ".ipynb" in path.lower():
            texts[path], written = code_of_notebook(content)
            texts |= {f"{path}/{file}": text for file, text in written.items()}
        else:
            text = decode(content)
            texts[path] = MAGIC.sub(r"\1pass", text) if EXPORTED.search(text) else text
    files, used = dict[str, str](), dict[str, list[str]]()
    for file in NAMES:
        if candidates := _candidates(file, texts):
            files[file], used[file] = _combined(file, candidates)
            others = [x.path for x in candidates if x.text != candidates[0].text]
            if passed_over := {*others} - {*used[file]}:
                notes.append(f"{used[file][0]} was read, not {', '.join(sorted(passed_over))}.")
    if not files:
        raise UserError(" ".join(["There is no utils.py, vae.py or visualize.py.", *notes]))
    helpers = dict[str, str]()
    for file, text in files.items():
        _add_helpers(file, text, texts, helpers)
    read = dict.fromkeys([path for paths in used.values() for path in paths] + [*helpers])
    missing = [Path(file).name for file in NAMES if file not in files]
    first = f"Read: {', '.join(read)}."
    notes.insert(0, f"{first} Not found: {', '.join(missing)}." if missing else first)
    return Submission(files, helpers, notes, models)


def _combined(file: str, candidates: list[Candidate]) -> tuple[str, list[str]]:
    """The text of a file, and the paths of the best candidate and of the one that completes it."""
    best, *others = candidates
    if best.is_script:
        return definitions(best.text, NAMES[file]), [best.path]
    tasks = {task.name for task in TASKS if task.file == file}
    lacking = {name for name in tasks if not best.functions.get(name)}
    for script in filter(lambda each: each.is_script, others):
        if new := {name for name in lacking if script.functions.get(name)}:
            added = definitions(script.text, NAMES[VAE] if file == VAE else new)
            return f"{best.text}\n\n{added}", [best.path, script.path]
    return best.text, [best.path]


def _candidates(file: str, texts: dict[str, str]) -> list[Candidate]:
    """The texts that may be this file of the tasks, the best one first."""
    tasks = {task.name for task in TASKS if task.file == file}
    found = []
    for path, text in texts.items():
        name = path.rpartition("/")[2]
        is_like, is_exact = LIKE[file].fullmatch(name), name.lower() == Path(file).name
        if is_exact or any(each in text for each in NAMES[file]):
            tree = parsed(text)
            defined = {getattr(node, "name", "") for node in tree.body} if tree else NAMES[file]
            if not is_exact and not (defined & (NAMES[file] | tasks) and (tree or is_like)):
                continue
            functions = functions_in(text, tasks)
            written = sum(map(bool, functions.values()))
            copy = COPY.search(name)
            number = int(copy[1] or copy[2] or 0) if copy else 0
            place = (not path.lower().endswith(file), path.count("/"), not is_exact, -number)
            is_script = not is_like or bool(EXPORTED.search(text))
            found.append(Candidate(is_script, -written, place, path, text, functions))
    return sorted(found)


@lru_cache
def _given_sum(file: str) -> str:
    """The sum of a file as it was handed out, or "" if the hand-out has no such file."""
    if GIVEN.exists():
        return json.loads(GIVEN.read_text()).get(file, "")
    return sum_of(decode((ROOT / file).read_bytes())) if (ROOT / file).is_file() else ""


def _add_helpers(file: str, text: str, texts: dict[str, str], helpers: dict[str, str]) -> None:
    """Add the modules that a file imports and that were sent, and the modules that these import."""
    for name in imports(file, text):
        parts = name.split(".")
        stems = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        for stem in stems:
            for target in (f"{stem}/__init__.py", f"{stem}.py"):
                given = _given_sum(target)
                # Where students send single files, a helper's folder is not known.
                is_placed = given or target.endswith("__init__.py")
                ending = target if is_placed else target.rpartition("/")[2]
                sent = [x for x in texts if f"/{COPY.sub('.py', x)}".endswith(f"/{ending}")]
                if sent and target not in {*helpers, *NAMES}:
                    path = min(sent, key=lambda path: (not path.endswith(target), path.count("/")))
                    if sum_of(texts[path]) != given:
                        helpers[target] = texts[path]
                        _add_helpers(target, texts[path], texts, helpers)
                if sent or given:
                    break
            if (sent or given) and not target.endswith("__init__.py"):
                break  # What follows are names in this module.
