"""Finds the modules of a hand-in that the tasks' files import."""

import json
import re
from functools import lru_cache
from hashlib import sha256

from assignment import ROOT, UTILS, VAE, VISUALIZE
from assignment.sources import decode, imports, parsed

COPY = re.compile(r"(?: ?\((\d+)\)|-(\d+))?\.pyw?(\.txt)?$", re.IGNORECASE)  # as "name (1).py"
GIVEN = ROOT / "assignment" / "given.json"  # the sums of the hand-out's files, only in a hand-out


@lru_cache
def given_sum(file: str) -> str:
    """The sum of a file as it was handed out, or "" if the hand-out has no such file."""
    if GIVEN.exists():
        return json.loads(GIVEN.read_text()).get(file, "")
    return sum_of((ROOT / file).read_bytes()) if (ROOT / file).is_file() else ""


def sum_of(content: bytes) -> str:
    """The sum of a text, whatever its encoding and line ends."""
    return sha256(decode(content).encode()).hexdigest()


def add_helpers(file: str, text: str, texts: dict[str, str], helpers: dict[str, str]) -> None:
    """Add the modules that a file imports and that were sent, and the modules that these import.

    Args:
        helpers: for each module's path in the program, the path at which it was found.
    """
    tree = parsed(text)
    for name in sorted(imports(tree, file)) if tree else ():
        parts = name.split(".")
        stems = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
        for target in [f"{stem}{ending}" for stem in stems for ending in ("/__init__.py", ".py")]:
            given, is_package = given_sum(target), target.endswith("__init__.py")
            # Where students send single files, a helper's folder is not known.
            ending = target if given or is_package else target.rpartition("/")[2]
            sent = [path for path in texts if f"/{COPY.sub('.py', path)}".endswith(f"/{ending}")]
            if sent and target not in {*helpers, UTILS, VAE, VISUALIZE}:
                path = min(sent, key=lambda path: (not path.endswith(target), path.count("/")))
                if sum_of(texts[path].encode()) != given:
                    helpers[target] = path
                    add_helpers(target, texts[path], texts, helpers)
            if (sent or given) and not is_package:
                break  # What follows are names in this module.
