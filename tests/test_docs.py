"""The pages: links, paths, options, commands and columns exist, and examples run."""

import csv
import json
import re
from importlib.util import find_spec

import pytest
import torch
from conftest import ROOT

from assignment import check, grade, handout
from codebase import evaluate
from codebase.arguments import parse_arguments
from codebase.datasets import loading
from codebase.runs import checkpoint
from codebase.runs.folder import CHECKPOINTS, RunFolder
from codebase.runs.tables import compare, report_runs
from codebase.settings import VERSION, Settings
from codebase.train import new_model

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "assignment" / "README.md"])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?<![\w/.-])(?:assignment|benchmarks|codebase|docs|tests|\.ci)/[\w./-]*\w?")
MODULE = re.compile(r"(?<![\w/.-])(?:assignment|codebase)(?:\.\w+)+(?![\w/(])")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
COMMAND = re.compile(r"(?:python|%run|--) run_vae\.py((?: [^#&|;]*)?)")
MADE_BY_THE_READER = {"codebase/models/nns/v2.py"}
OF_OTHER_PROGRAMS = {"--against", "--busy", "--force", "--max-restarts"}  # benchmark, Git, torchrun

TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
PROSE = {page: FENCE.sub("", text) for page, text in TEXTS.items()}
# The lines of blocks of code, and the spans of code between words, with their pages.
CODE = [
    (page, line)
    for page, text in TEXTS.items()
    for block in [*(block for _, block in FENCE.findall(text)), *SPAN.findall(PROSE[page])]
    for line in block.replace("\\\n", "").splitlines()
]


def anchors(page) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", PROSE[page], re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def test_links_lead_to_files_and_headings_and_the_readme_to_every_page():
    found = [ROOT / "README.md"]
    for page in found:  # The list grows.
        for link in LINK.findall(PROSE.get(page, "")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert "://" in link or target.exists(), (page.name, link)
            assert "://" in link or not anchor or anchor in anchors(target), (page.name, link)
            found += [target] if target.is_file() and target not in found else []
    assert {*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.png"), *PAGES} <= {*found}


def test_paths_and_modules_that_are_named_exist():
    for page, piece in CODE:
        for path in {*PATH.findall(piece)} - MADE_BY_THE_READER:
            assert (ROOT / path).exists(), (page.name, piece)
        for module in MODULE.findall(piece):
            assert find_spec(module), (page.name, piece)


def test_commands_and_options_that_are_named_exist(capsys):
    for page, piece in CODE:
        for arguments in COMMAND.findall(piece):
            try:
                parse_arguments(arguments.replace("$z", "2").split())
            except SystemExit as stop:  # --help, or what is not taken
                assert stop.code == 0, (page.name, piece)
    for command in (check, grade, handout):
        with pytest.raises(SystemExit):
            command.main(["--help"])
    known = {f"--{name}" for name in vars(parse_arguments([]))} | {"--help"} | OF_OTHER_PROGRAMS
    known |= {*OPTION.findall(capsys.readouterr().out)}
    for page, text in PROSE.items():
        assert {*OPTION.findall(" ".join(SPAN.findall(text)))} <= known, page.name


@pytest.mark.slow
def test_the_python_that_is_shown_runs(tmp_path, monkeypatch, synthetic_images):
    monkeypatch.chdir(tmp_path)
    folder = RunFolder(Settings())
    folder.path.mkdir(parents=True)
    checkpoint.save(new_model(Settings()).state_dict(), folder.model(20_000))
    blocks = [block for text in TEXTS.values() for block in FENCE.findall(text)]
    first, second = (text for language, text in blocks if language == "python")
    names: dict[str, torch.Tensor] = {}
    exec(first, names)
    assert names["x"].shape == names["p"].shape == (16, 784)
    monkeypatch.setattr(loading, "load", lambda *_: synthetic_images)
    monkeypatch.setattr(evaluate, "SUBSET_PASSES", 2)
    exec(second.replace("iter_max=1000", "iter_max=3"), names)
    assert names["measured"].all.nelbo > 0


@pytest.mark.slow
def test_the_columns_and_keys_of_the_files_are_explained(run_vae, small):
    run_vae(*small, "--iter_max", 1, "--iwae", 2, "--valid", 10)
    (folder,) = CHECKPOINTS.glob("model=*")
    settings = json.loads((folder / "settings.json").read_text())
    assert (ROOT / ".git").exists() == bool(settings["starts"][0]["commit"])
    results = json.loads((folder / "results-00001.json").read_text())
    report_runs([Settings(**settings["settings"])], {})
    compare()
    (several,) = CHECKPOINTS.glob("*steps=1.csv")
    tables = (folder / "metrics.csv", several, CHECKPOINTS / "compare.csv")
    metrics, of_several, compared = (next(csv.reader(table.open())) for table in tables)
    page = TEXTS[ROOT / "docs" / "files.md"].replace("IWAE-5000", "IWAE-2")
    sections = dict(section.split("\n", 1) for section in page.split("\n## "))
    names = [metrics, {**settings, **settings["settings"], **settings["starts"][0]}, results]
    names += [of_several, [name.removesuffix(" deviation") for name in compared]]
    headings = ("metrics.csv", "settings.json", "results-NNNNN.json", "The CSV of several runs")
    for heading, explained in zip((*headings, "compare.csv"), names, strict=True):
        assert {*explained} <= {*SPAN.findall(sections[heading])}


def test_the_changes_begin_with_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.findall(r"^## \[([\d.]+)\] - ([\d-]+)$", text, re.MULTILINE)[0]
    assert newest == VERSION
    assert f'date-released: "{date}"' in (ROOT / "CITATION.cff").read_text()
