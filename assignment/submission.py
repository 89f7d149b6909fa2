"""Finds the files of a hand-in as students send them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE, sources
from assignment.archives import files_in
from codebase.system.errors import UserError

# The names that other code or the tasks need from each file.
NAMES = {
    UTILS: {"sample_gaussian", "gaussian_parameters", "kl_normal", "log_normal", "duplicate"}
    | {"log_bernoulli_with_logits", "log_mean_exp"},
    VAE: {"VAE", *(task.name for task in TASKS if task.file == VAE)},
    VISUALIZE: {"visualize_samples"},
}
# Names such as "utils.py", "Utils (1).py", "vae_final.py.txt", "doejane_12345_67890_utils-1.py".
LIKE = {
    file: re.compile(rf"(.*[\W_])?{Path(file).stem}([\W_].*)?\.(py|txt)", re.IGNORECASE)
    for file in NAMES
}
PYTHON = re.compile(r"\.(py|ipynb)(\.txt)?$", re.IGNORECASE)
# Endings of copies such as "name (1).py" and "name-1.py".
COPY = re.compile(r"(?: ?[(-](\d+)\)?)?\.py(\.txt)?$", re.IGNORECASE)
MODEL = re.compile(r"([^/]+)/model-20000\.pt$")
RUN = re.compile(r"model=vae_z=10_run=\d{4,}")


class Submission(NamedTuple):
    """The files of one hand-in."""

    files: dict[str, str]  # the texts of the tasks' files and of what they import, by paths
    notes: list[str]  # sentences about files that were read, and about those that were not
    runs: dict[str, bytes]  # the final models of trained runs, by the names of their folders

    @property
    def run(self) -> bytes | None:
        """The model of the first run with the assignment's settings."""
        return next((self.runs[x] for x in sorted(self.runs) if RUN.fullmatch(x)), None)


class Candidate:
    """A text that may be a file of the tasks."""

    def __init__(self, file: str, path: str, text: str):
        self.path, self.text, name = path, text, path.rpartition("/")[2]
        functions = sources.functions_in(text)
        self.written = {x for x in NAMES[file] if functions.get(x)}
        # Of a notebook or another program, only definitions are used.
        self.is_script = not LIKE[file].fullmatch(name) or bool(sources.EXPORTED.search(text))
        place = not path.lower().endswith(file), path.count("/"), name.lower() != Path(file).name
        copy = COPY.search(name)
        number = int(copy[1] or 0) if copy else 0
        # The best one has the least rank.
        self.rank = self.is_script, -len(self.written), *place, -number, path


def find(parts: Iterable[tuple[str, Path]], runs: bool = False) -> Submission:
    """Find the files of a hand-in; with `runs`, also its models.

    Its parts are folders, archives and files; that of a folder has the name "". Raises UserError if
    there is nothing to check, or an archive is not suitable.
    """

    def is_wanted(path: str) -> bool:
        is_like = any(like.fullmatch(path.rpartition("/")[2]) for like in LIKE.values())
        return bool(is_like or PYTHON.search(path) or (runs and MODEL.search(path)))

    texts, models, notes = dict[str, str](), dict[str, bytes](), list[str]()
    for name, path in (found for part in parts for found in files_in(*part, is_wanted)):
        if path.is_symlink() or not path.is_file():
            notes.append(f"{name} is a link and was not read.")
        elif match := MODEL.search(name):
            models[match[1]] = path.read_bytes()
        else:
            texts |= sources.texts_in(name, path.read_bytes())
    files, used = dict[str, str](), list[str]()
    for file in NAMES:
        if candidates := _candidates(file, texts):
            files[file], read = _combined(file, candidates)
            used += read
            others = {x.path for x in candidates if x.text != candidates[0].text} - {*read}
            if others:
                notes.append(f"{read[0]} was read, not {', '.join(sorted(others))}.")
    if not files:
        raise UserError(" ".join(["There is no utils.py, vae.py or visualize.py.", *notes]))
    helpers = _helpers(files, texts)
    missing = [Path(file).name for file in NAMES if file not in files]
    first = f"Read: {', '.join(dict.fromkeys([*used, *helpers]))}."
    notes.insert(0, f"{first} Not found: {', '.join(missing)}." if missing else first)
    return Submission(files | helpers, notes, models)


def _candidates(file: str, texts: dict[str, str]) -> list[Candidate]:
    """The texts that may be this file of the tasks, the best one first."""
    definition = re.compile(rf"^[ \t]*(def|class) ({'|'.join(NAMES[file])})\b", re.MULTILINE)
    named = re.compile(rf"(.*/)?{Path(file).name}", re.IGNORECASE)
    possible = [x for x in texts if named.fullmatch(x) or definition.search(texts[x])]
    return sorted((Candidate(file, x, texts[x]) for x in possible), key=lambda each: each.rank)


def _combined(file: str, candidates: list[Candidate]) -> tuple[str, list[str]]:
    """The text of a file, and the paths of the best candidate and of the one that completes it."""
    best, *others = candidates
    if best.is_script:
        return sources.definitions(best.text, NAMES[file]), [best.path]
    for other in others:
        new = other.written - best.written
        if other.is_script and new:
            added = sources.definitions(other.text, NAMES[VAE] if file == VAE else new)
            return f"{best.text}\n\n{added}", [best.path, other.path]
    return best.text, [best.path]


def _helpers(files: dict[str, str], texts: dict[str, str]) -> dict[str, str]:
    """The modules that were sent and that the files import, or these modules in turn."""
    helpers, unread = dict[str, str](), [*files.items()]
    while unread:
        for name in sources.imports(*unread.pop()):
            parts = name.split(".")  # The last ones may be names in a module.
            stems = ["/".join(parts[: i + 1]) for i in range(len(parts))]
            for target in (f"{x}{ending}" for x in stems for ending in ("/__init__.py", ".py")):
                if target not in {*helpers, *NAMES} and (text := _sent(target, texts)):
                    helpers[target] = text
                    unread.append((target, text))
    return helpers


def _sent(target: str, texts: dict[str, str]) -> str:
    """The text that was sent for a module, such as "codebase/mine.py", "" if it is not new."""
    ours, is_ours = ROOT / target, target.startswith("codebase/")
    if is_ours and ours.with_suffix("").is_dir():
        return ""  # The program has a package of that name.
    given = sources.decode(ours.read_bytes()) if is_ours and ours.is_file() else ""
    # Where students send single files, a helper's folder is not known.
    is_placed = given or target.endswith("__init__.py")
    ending = target if is_placed else target.rpartition("/")[2]
    sent = [path for path in texts if f"/{COPY.sub('.py', path)}".endswith(f"/{ending}")]
    best = min(sent, key=lambda path: (not path.endswith(target), path.count("/")), default="")
    return texts[best] if sent and texts[best] != given else ""
