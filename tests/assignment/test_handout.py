"""The content of the hand-out: the program without its solution."""

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
# Formulas of solutions, whatever the names: roots and noise, closed forms, averages over a batch.
FORMULAS = [
    r"(?<!math\.)sqrt|\*\* ?0?\.5\b|\brandn|rsample|torch\.normal|\bNormal\(|epsilon|\beps\b",
    r"kl_divergence|log_prob\(|binary_cross_entropy|logsigmoid|softplus\(logits",
    r"\.log\(\) ?[-+]|\.square\(\) ?/|[-+] ?1\)\.(sum|mean)|math\.pi",
    r"log_mean_exp\(.*\)\.mean|log_normal\(z|kl_normal\(m|log_bernoulli_with_logits\(x, [a-z]+\.",
    r"return kl|return nelbo, kl|sample_x\(num_samples\)",
]

# The geometry of synthetic digits, and statistics.
OTHER_FORMULAS = {"codebase/datasets/synthetic.py", "codebase/evaluate.py"}
OTHER_FORMULAS |= {f"assignment/{name}.py" for name in ("answers", "describe", "inputs")}


def write_handout(folder, *further, options=()):
    tasks = ["--tasks", *further] if further else []
    with redirect_stdout(StringIO()) as output:
        assert handout.main([str(folder), *tasks, *options]) == 0
    assert str(folder) in output.getvalue()
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The hand-out of a course with all tasks."""
    return write_handout(tmp_path_factory.mktemp("handout") / "new", *FURTHER)


def function_in(path, name):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return next(n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == name)


def texts(folder):
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".png"]
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in paths}


def test_files_that_show_the_solution_are_left_out(given):
    names = set(texts(given))
    assert {"run_vae.py", "README.md", "requirements.txt", "LICENSE", ".gitignore"} <= names
    assert {"assignment/check.py", "assignment/numbers.json"} <= names
    left_out = "explorer|tests|bench|mistakes|handout|grade|entries"
    assert not [name for name in names if re.search(left_out, name)]
    assert [path.name for path in given.glob("docs/*")] == ["samples.png"]
    assert [path.name for path in given.glob("*.md")] == ["README.md"]


def test_links_and_pictures_of_the_readme_lead_to_files(given):
    links = re.findall(r"\]\(([^)#]+)", (given / "README.md").read_text(encoding="utf-8"))
    assert links
    assert not [link for link in links if "://" not in link and not (given / link).exists()]


@pytest.mark.slow
def test_no_statement_of_a_removed_body_is_anywhere(given):
    """The comparison ignores formatting, because `ast.unparse` writes all statements."""
    everything = texts(given)
    trees = [ast.parse(text) for name, text in everything.items() if name.endswith(".py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    known = {ast.unparse(node) for node in nodes}
    harmless = {"m, v = self.enc.encode(x)", "rows, columns = grid_size"}
    for name, file in FILES.items():
        body = function_in(ROOT / file, name).body[1:]
        statements = {ast.unparse(each) for each in body} - harmless
        assert not statements & known
        assert not [x for x in statements for text in everything.values() if x in text]


def test_no_formula_is_anywhere(given):
    for name, text in texts(given).items():
        lines = text.splitlines() if name not in OTHER_FORMULAS else []
        found = [line for line in lines for formula in FORMULAS if re.search(formula, line)]
        assert not found, name


@pytest.mark.parametrize("name", FILES)
def test_a_function_keeps_signature_and_docstring(given, name):
    ours, theirs = (function_in(folder / FILES[name], name) for folder in (ROOT, given))
    assert ast.unparse(ours.args) == ast.unparse(theirs.args)
    assert ast.get_docstring(ours) == ast.get_docstring(theirs) is not None
    raising = ast.unparse(theirs.body[1:])
    number = next(task.number for task in TASKS if task.name == name)
    assert raising.startswith("raise NotImplementedError('")
    assert (f"task {number}: " if number else "a further task: ") in raising


def test_without_options_the_further_tasks_are_solved(tmp_path):
    folder = write_handout(tmp_path)
    for name, file in FILES.items():
        ours, theirs = (function_in(each / file, name) for each in (ROOT, folder))
        removed = name not in FURTHER or name == "negative_iwae_bound"
        assert (ast.unparse(ours) != ast.unparse(theirs)) == removed
    text = (folder / "README.md").read_text()
    assert "](docs/samples.png)" in text and "| +" not in text and "**+" not in text


def test_the_teachers_words_come_first(tmp_path, given):
    words = tmp_path / "words.md"
    words.write_text("Hand in by Friday.\n", encoding="utf-8")
    folder = write_handout(tmp_path / "new", options=["--text", str(words)])
    text = (folder / "README.md").read_text()
    assert text.split("\n\n")[1] == "Hand in by Friday."
    assert "<!--" not in text + (given / "README.md").read_text()
    with pytest.raises(SystemExit):
        handout.main([str(tmp_path / "other"), "--text", str(tmp_path / "missing.md")])


def test_the_parts_that_students_read_first_exist(given):
    text = (given / "README.md").read_text().split("## Read first")[1].split("\n## ")[0]
    file = ""
    for line in re.findall(r"^\| .*\|$", text, re.MULTILINE)[2:]:
        cells = [re.findall("`([^`]+)`", cell) for cell in line.split("|")]
        file = cells[1][0] if cells[1] else file
        found = [function_in(given / file, name) for name in cells[2]]
        assert found or "all" in line or "last" in line


def test_the_readme_has_a_table_of_the_tasks(given):
    text = (given / "README.md").read_text()
    rows = re.findall(r"(?m)^\| (\d|\+) \| `?([\w ]+)`? \| (?:`(.*)`)? *\| (\d) \|$", text)
    expected = [(str(t.number or "+"), t.name, t.file, str(t.points)) for t in TASKS]
    assert [(n, "train" if "train" in f else f, file, p) for n, f, file, p in rows] == expected
    assert re.findall(r"^\*\*\+ `(\w+)`", text, re.MULTILINE) == FURTHER  # paragraphs


def test_a_folder_that_is_not_empty_is_refused(tmp_path, capsys):
    (tmp_path / "mine").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(SystemExit) as stop:
            handout.main([str(folder)])
        assert stop.value.code == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1 and f"{folder} is not an empty folder" in message
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def run(folder, *arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.slow
def test_it_stops_at_the_first_task(tmp_path):
    folder = write_handout(tmp_path, *FURTHER)
    draw_fewer_digits(folder)
    trained = run(folder, "run_vae.py", "--dataset", "synthetic", "--iter_max", "2")
    last = trained.stderr.splitlines()[-1]
    assert trained.returncode == 1 and last.startswith("run_vae.py: ") and "task 2: " in last


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The hand-out of the assignment, with everything written except task 4."""
    folder = write_handout(tmp_path_factory.mktemp("begun"))
    draw_fewer_digits(folder)
    for name, file in (("utils.py", UTILS), ("vae.py", VAE)):
        shutil.copy(ROOT / "tests" / "solutions" / "bare" / name, folder / file)
    return folder


@pytest.mark.slow
def test_it_trains_once_the_tasks_are_written_and_has_no_explorer(begun):
    command = "run_vae.py", "--dataset", "synthetic", "--iter_max", "2"
    trained, refused = run(begun, *command), run(begun, *command, "--explorer", "1")
    assert (trained.returncode, trained.stdout.count("NELBO: ")) == (0, 2)
    assert "task 4: " in trained.stderr
    assert refused.returncode == 2 and "hand-out" in refused.stderr


@pytest.mark.slow
def test_its_checks_find_the_missing_task(begun):
    checked = run(begun, "-m", "assignment.check")
    points = [("sample_gaussian", "3"), ("negative_elbo_bound", "6"), ("visualize_samples", "0")]
    assert re.findall(r", (\w+): (\d) of", checked.stdout) == points
    assert (checked.returncode, checked.stderr) == (1, "")
