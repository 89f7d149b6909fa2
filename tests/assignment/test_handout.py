"""The hand-out: what is in it, and what is not."""

import ast
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO

import pytest
from conftest import draw_fewer_digits

from assignment import ROOT, TASKS, UTILS, VAE, handout

FURTHER = [task.name for task in TASKS if not task.number]
FILES = {task.name: task.file for task in TASKS if task.file}
# Formulas of solutions, in whatever names: roots and noise, closed forms, averages of a batch.
FORMULAS = [
    r"sqrt|\*\* ?0?\.5\b|\brandn|rsample|torch\.normal|\bNormal\(|epsilon|\beps\b",
    r"kl_divergence|log_prob\(|binary_cross_entropy|logsigmoid|softplus\(logits",
    r"\.log\(\) ?[-+]|\.square\(\) ?/|[-+] ?1\)\.(sum|mean)|math\.pi",
    r"log_mean_exp\(.*\)\.mean|log_normal\(z|kl_normal\(m|log_bernoulli_with_logits\(x, [a-z]+\.",
    r"return kl|return nelbo, kl|sample_x\(num_samples\)",
]


def made(folder, *more):
    with redirect_stdout(StringIO()) as said:
        assert handout.main([str(folder), *(["--tasks", *more] if more else [])]) == 0
    assert said.getvalue() == f"The hand-out is in {folder}; hand out all of it\n"
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The hand-out of a course that asks for everything."""
    return made(tmp_path_factory.mktemp("handout") / "new", *FURTHER)


def function_in(path, name):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return next(n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == name)


def texts(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}


def test_what_tells_the_solution_is_left_out(given):
    names = set(texts(given))
    assert {"run_vae.py", "README.md", "requirements.txt", "LICENSE"} <= names
    assert {"assignment/check.py", "assignment/numbers.json", "docs/samples.png"} <= names | {
        path.relative_to(given).as_posix() for path in given.rglob("*.png")
    }
    assert not [name for name in names if re.search("explorer|tests|bench|mistakes|handout", name)]
    assert [path.name for path in given.glob("docs/*")] == ["samples.png"]
    assert [path.name for path in given.glob("*.md")] == ["README.md"]


def test_links_and_pictures_of_the_text_lead_to_files(given):
    links = re.findall(r"\]\(([^)#]+)", (given / "README.md").read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if "://" not in link and not (given / link).exists()]


def test_no_line_of_a_body_is_anywhere(given):
    """Each statement that was taken out, written by one rule, is in no line of no file."""
    everything = texts(given)
    lines = {
        name: {
            ast.unparse(node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)
        }
        for name, text in everything.items()
        if name.endswith(".py")
    }
    harmless = {"m, v = self.enc.encode(x)", "rows, columns = grid_size"}
    for name, file in FILES.items():
        body = function_in(ROOT / file, name).body[1:]
        for statement in {ast.unparse(each) for each in body} - harmless:
            assert not [place for place, known in lines.items() if statement in known], statement
            assert not [place for place, text in everything.items() if statement in text], statement


def test_no_formula_is_anywhere(given):
    for name, text in texts(given).items():
        if name == "codebase/datasets/synthetic.py":  # draws digits
            continue
        for formula in FORMULAS:
            found = [line for line in text.splitlines() if re.search(formula, line)]
            assert not found, (name, found)


@pytest.mark.parametrize("name", FILES)
def test_a_function_keeps_signature_and_docstring(given, name):
    ours, theirs = (function_in(folder / FILES[name], name) for folder in (ROOT, given))
    assert ast.unparse(ours.args) == ast.unparse(theirs.args)
    assert ast.get_docstring(ours) == ast.get_docstring(theirs) is not None
    raising = ast.unparse(theirs.body[1:])
    number = next(task.number for task in TASKS if task.name == name)
    assert raising.startswith("raise NotImplementedError('")
    assert (f"task {number}: " if number else "a further task: ") in raising


def test_the_assignment_takes_out_its_tasks_and_what_tells_them(tmp_path):
    folder = made(tmp_path)
    for name, file in FILES.items():
        ours, theirs = (function_in(each / file, name) for each in (ROOT, folder))
        taken = name not in FURTHER or name == "negative_iwae_bound"
        assert (ast.unparse(ours) != ast.unparse(theirs)) == taken
        rest = (folder / file).read_text().splitlines()
        assert [line for line in rest if "NotImplementedError" not in line]
    text = (folder / "README.md").read_text()
    assert "`kl_normal` |" not in text
    assert "](docs/samples.png)" in text


def test_the_text_has_the_table_of_the_tasks(given):
    text = (given / "README.md").read_text()
    rows = re.findall(
        r"^\| (\d|\+) \| `?([\w ]+)`? \| (?:`(.*)`)? *\| (\d) \|$", text, re.MULTILINE
    )
    expected = [(str(t.number or "+"), t.name, t.file, str(t.points)) for t in TASKS]
    assert [(n, "train" if "train" in f else f, file, p) for n, f, file, p in rows] == expected


def test_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(SystemExit) as stop:
            handout.main([str(folder)])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        assert f"{folder} is not an empty folder" in message
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def run(folder, *arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_it_runs_to_the_first_task(tmp_path):
    folder = made(tmp_path, *FURTHER)
    draw_fewer_digits(folder)
    trained = run(folder, "run_vae.py", "--dataset", "synthetic", "--iter_max", "2")
    assert trained.returncode == 1
    *_, last = trained.stderr.splitlines()
    assert last.startswith("run_vae.py: ")
    assert "is not written yet: task 2: " in last


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The hand-out of the assignment, of which all is written but task 4."""
    folder = made(tmp_path_factory.mktemp("begun"))
    draw_fewer_digits(folder)
    for name, file in (("utils.py", UTILS), ("vae.py", VAE)):
        shutil.copy(ROOT / "tests" / "solutions" / "bare" / name, folder / file)
    return folder


@pytest.mark.slow
def test_it_trains_once_the_tasks_are_written(begun):
    trained = run(begun, "run_vae.py", "--dataset", "synthetic", "--iter_max", "2")
    assert trained.returncode == 0
    assert trained.stdout.count("NELBO: ") == 2
    assert "visualize_samples of codebase.visualize is not written yet: task 4" in trained.stderr


@pytest.mark.slow
def test_it_says_that_the_page_is_no_part(begun):
    refused = run(begun, "run_vae.py", "--dataset", "synthetic", "--explorer", "1")
    assert refused.returncode == 2
    assert "the page is not part of this hand-out" in refused.stderr


@pytest.mark.slow
def test_its_own_checks_say_what_is_missing_and_what_holds(begun):
    checked = run(begun, "-m", "assignment.check")
    assert checked.returncode == 1
    assert re.findall(r", (\w+): (\d) of", checked.stdout) == [
        *(("sample_gaussian", "3"), ("negative_elbo_bound", "6"), ("visualize_samples", "0"))
    ]
    assert checked.stderr == ""
