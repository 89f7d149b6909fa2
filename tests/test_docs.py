"""The pages: links, paths, options, commands and columns exist, and no sentence is repeated."""

import csv
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from assignment import check, grade, handout
from codebase.arguments import parse_arguments
from codebase.bounds import Bounds, Measured
from codebase.datasets import loading
from codebase.runs import checkpoint
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.results import (
    write_iwae_of_all,
    write_metrics,
    write_results,
    write_settings,
)
from codebase.runs.tables import compare, report_runs
from codebase.settings import VERSION, Settings
from codebase.train import new_model

PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "assignment" / "README.md"],
    key=lambda path: path.relative_to(ROOT).as_posix(),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.-])(?:assignment|benchmarks|codebase|docs|tests|\.ci)/[\w./-]*\w?")
MODULE = re.compile(r"(?<![\w/.-])(?:assignment|codebase)(?:\.\w+)+(?![\w/(])")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMAND = re.compile(r"(?:python|%run|--) run_vae\.py((?: [^#&|;]*)?)")
MADE_BY_THE_READER = {"codebase/models/nns/v2.py"}
OF_OTHER_PROGRAMS = {"--against", "--busy", "--force", "--max-restarts"}  # benchmark, Git, torchrun

of_every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[path.relative_to(ROOT).as_posix() for path in PAGES]
)


def prose(page: Path) -> str:
    """A page's text without its blocks of code."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def code(page: Path) -> list[str]:
    """The pieces of code in a page: spans, and the lines of blocks, fenced or indented."""
    spans = [" ".join(span.split()) for span in SPAN.findall(prose(page))]
    blocks = [block for _, block in FENCE.findall(page.read_text(encoding="utf-8"))]
    blocks += re.findall(r"^ {4}(.+)$", prose(page), re.MULTILINE)
    return spans + [line for block in blocks for line in block.replace("\\\n", "").splitlines()]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        same = sum(re.fullmatch(rf"{anchor}(-\d+)?", earlier) is not None for earlier in found)
        found.append(f"{anchor}-{same}" if same else anchor)
    return {*found}


def sentences(page: Path) -> list[str]:
    """The sentences of a page, those in cells and items too, with single spaces."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*|#]|\d+\.|\[\d+\]))", prose(page))
    cells = (cell for block in blocks for cell in re.split(r"(?<!\\)\|", block))
    plain = (re.sub(r"^(?:[-*#]+|\d+\.)\s", "", " ".join(cell.split())) for cell in cells)
    return [sentence for cell in plain for sentence in re.split(r"(?<=[.!?:])\s+", cell)]


def leads_to(page: Path) -> set[Path]:
    """The files that the links and pictures of a page lead to."""
    links = [link.partition("#")[0] for link in LINK.findall(prose(page)) if "://" not in link]
    return {(page.parent / link).resolve() for link in links if link}


@of_every_page
def test_links_and_pictures_lead_to_files_and_headings(page):
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_and_every_picture_is_found_from_the_readme():
    found = [ROOT / "README.md"]
    for path in found:  # which grows
        further = leads_to(path) if path.suffix == ".md" else set()
        found += sorted(further - {*found})
    there = {path for pattern in ("*.md", "*.png") for path in ROOT.glob(f"docs/**/{pattern}")}
    assert there <= {*found}


@of_every_page
def test_paths_and_modules_that_are_named_exist(page):
    for piece in code(page):
        for path in {*PATH.findall(piece)} - MADE_BY_THE_READER:
            assert (ROOT / path).exists(), piece
        for module in MODULE.findall(piece):
            assert find_spec(module), piece


@of_every_page
def test_commands_are_taken_by_the_program(page):
    for piece in code(page):
        for arguments in COMMAND.findall(piece):
            try:
                parse_arguments(arguments.replace("$z", "2").split())
            except SystemExit as stop:  # --help, or what is not taken
                assert stop.code == 0, piece


@pytest.fixture
def known(capsys) -> set[str]:
    """The options of run_vae.py, of the teacher's commands, and some of other programs."""
    for command in (check, grade, handout):
        with pytest.raises(SystemExit):
            command.main(["--help"])
    own = {f"--{name}" for name in vars(parse_arguments([]))}
    return own | {"--help"} | {*OPTION.findall(capsys.readouterr().out)} | OF_OTHER_PROGRAMS


@of_every_page
def test_options_that_are_named_exist(page, known):
    for span in SPAN.findall(prose(page)):
        assert {*OPTION.findall(span)} <= known, span


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_no_sentence_stands_twice():
    places: dict[str, list[str]] = {}
    for page in PAGES:
        for sentence in sentences(page):
            if len(sentence) > 60:
                places.setdefault(sentence, []).append(page.name)
    assert len(places) > 200
    assert not {sentence: at for sentence, at in places.items() if len(at) > 1}


def test_no_row_of_a_table_stands_twice():
    lines = [line for page in PAGES for line in prose(page).splitlines()]
    rows = [line for line in lines if re.match(r"\|.*\d\.\d", line)]
    assert len(rows) > 20
    assert len(rows) == len({*rows})


def test_the_python_that_is_shown_runs(tmp_path, monkeypatch, synthetic_images):
    monkeypatch.chdir(tmp_path)
    settings = Settings(z=10)
    folder = RunFolder(settings)
    folder.path.mkdir(parents=True)
    checkpoint.save(new_model(settings).state_dict(), folder.model(settings.iter_max))
    blocks = [each for page in PAGES for each in FENCE.findall(page.read_text(encoding="utf-8"))]
    first, second = (text for language, text in blocks if language == "python")
    names: dict[str, torch.Tensor] = {}
    exec(first, names)
    assert {*names["x"].unique().tolist()} == {0, 1}
    assert names["x"].shape == names["p"].shape == (16, 784)
    monkeypatch.setattr(loading, "load", lambda *_: synthetic_images)
    exec(second.replace("iter_max=1000", "iter_max=3"), names)
    assert names["measured"].all.nelbo > 0


def first_cells(heading: str, table: int = 0) -> list[str]:
    """The code in the first column of a table below a heading of the page on files."""
    text = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)[table].splitlines()[2:]
    return [name for row in rows for name in SPAN.findall(row.split("|")[1])]


def test_the_columns_and_keys_that_are_explained_are_those_of_the_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings, bounds = Settings(), Bounds(3.0, 1.0, 2.0)
    folder = RunFolder(settings)
    folder.path.mkdir(parents=True)

    def header(path):
        with open(path, newline="") as file:
            return next(csv.reader(file))

    write_metrics(folder, [])
    assert first_cells("metrics.csv") == header(folder.metrics)
    write_settings(folder, torch.device("cpu"), 0, {"files": {}, "commit": None})
    content = json.loads(folder.settings_file.read_text())
    assert first_cells("settings.json") == [*content]
    assert first_cells("settings.json", 1) == [*content["starts"][0]]
    page = (ROOT / "docs" / "files.md").read_text(encoding="utf-8")
    assert {*content["settings"]} <= {*SPAN.findall(page)}
    write_results(folder, 20_000, Measured(bounds, bounds, bounds), [1.0], {1: 3.0})
    write_iwae_of_all(folder, 20_000, 5000, 3.0, 0.1, 0.1, 10)
    results = json.loads(folder.results(20_000).read_text())
    assert first_cells("results-NNNNN.json") == [*results]
    report_runs([settings, settings._replace(run=9)], {})
    (path,) = CHECKPOINTS.glob("*.csv")
    assert first_cells("The CSV of several runs") == header(path)
    assert f"`{path.name}`" in page
    compare()
    means = [name for name in header(CHECKPOINTS / "compare.csv") if "deviation" not in name]
    assert first_cells("compare.csv") == [*means, "deviation"]


def test_the_changes_begin_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.findall(r"^## \[([\d.]+)\] - ([\d-]+)$", text, re.MULTILINE)[0]
    assert newest == VERSION
    assert f'date-released: "{date}"' in (ROOT / "CITATION.cff").read_text()
