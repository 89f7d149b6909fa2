"""The checks of right and wrong solutions, run in this process."""

import importlib.util
import json
import re
import shutil
import sys

import pytest
from wrong_solutions import RIGHT, UNKNOWN, WRONG

import codebase
import codebase.models
from assignment import ROOT, TASKS, UTILS, VAE, VISUALIZE, check, student
from codebase.bounds import Bounds, Measured
from codebase.runs.folder import RunFolder
from codebase.runs.results import write_results
from codebase.settings import Settings

STUDENTS = ROOT / "tests" / "solutions"
FILES = {task.name: task.file for task in TASKS}
FURTHER = [task.name for task in TASKS if not task.number]


@pytest.fixture(autouse=True)
def one_process(monkeypatch, tmp_path):
    """Run solutions in this process, because starting others takes long."""
    monkeypatch.chdir(tmp_path)

    def install(files):
        for file, path in files.items():
            name = file[:-3].replace("/", ".")
            spec = importlib.util.spec_from_file_location(name, path or ROOT / file)
            module = importlib.util.module_from_spec(spec)
            monkeypatch.setitem(sys.modules, name, module)
            package = codebase.models if file == VAE else codebase
            monkeypatch.setattr(package, name.split(".")[-1], module, raising=False)
            spec.loader.exec_module(module)

    def run_student(task, files, run):
        try:
            install(files)
            answers = student.answer_task(task.name, task.file, str(run))
            return json.loads(json.dumps(answers)), []
        except (Exception, SystemExit) as error:
            return student.sentence_for(error), []

    monkeypatch.setattr(check, "run_student", run_student)


@pytest.fixture
def checked(capsys, tmp_path):
    """Check a solution with replacements in it, and return the status and the text of each task.

    Task 4 takes long, so it is left out unless `pictures` is true.
    """

    def checked(replacements=(), solution="randn_like_v", tasks=(), run=(), pictures=False):
        folder = tmp_path / "sent"
        shutil.copytree(STUDENTS / solution, folder)
        if pictures:
            shutil.copy(ROOT / VISUALIZE, folder)
        for name, old, new in replacements:
            file = folder / FILES[name].split("/")[-1]
            text = file.read_text()
            assert text.count(RIGHT[name]) == 1 and old in RIGHT[name]
            file.write_text(text.replace(RIGHT[name], RIGHT[name].replace(old, new)))
        more = ["--tasks", *tasks] if tasks else []
        status = check.main([str(folder), *more, *run])
        text = capsys.readouterr().out
        assert all(len(line) <= 80 for line in text.splitlines())
        found = re.findall(r"^Task .*?, (\w+): (.*?)\n\n", text, re.DOTALL | re.MULTILINE)
        sums = map(sum, zip(*(points(text) for _, text in found), strict=True))
        assert text.endswith("{} of {} points\n".format(*sums))
        return status, dict(found)

    return checked


def points(text):
    """The points that a task got, and the points that it is worth."""
    return [int(number) for number in re.match(r"(\d+) of (\d+) points", text).groups()]


@pytest.mark.slow
@pytest.mark.parametrize("solution", sorted(path.name for path in STUDENTS.glob("*/")))
def test_right_solutions_get_all_points(checked, solution):
    if not (STUDENTS / solution / "vae.py").exists():
        pytest.skip("not a solution")
    status, texts = checked(solution=solution, tasks=FURTHER, pictures=True)
    missing = {"log_normal", "negative_iwae_bound"} if solution == "bare" else set()
    assert {name for name, text in texts.items() if points(text)[0] == 0} == missing
    assert all(len(set(points(text))) == 1 for name, text in texts.items() if name not in missing)
    assert status == bool(missing)
    assert set(texts) == set(FILES) - {"train"}
    for name in missing:
        assert f"has no {name}" in " ".join(texts[name].split())


@pytest.mark.slow
def test_our_solution_gets_all_points(capsys):
    assert check.main(["--tasks", *FURTHER]) == 0
    assert capsys.readouterr().out.count("correct") == len(TASKS) - 1


@pytest.mark.parametrize(
    "mistake",
    [
        pytest.param(mistake, marks=[pytest.mark.slow] if name == "visualize_samples" else [])
        for mistake, (name, *_) in WRONG.items()
    ],
)
def test_a_mistake_is_named(checked, mistake):
    name, old, new, words = WRONG[mistake]
    tasks = [name] if name in FURTHER else []
    pictures = name == "visualize_samples"
    status, texts = checked([(name, old, new)], tasks=tasks, pictures=pictures)
    text = " ".join(texts[name].split())
    assert status == 1
    assert points(text)[0] == 0
    assert words in text
    assert "No known mistake" not in text
    assert "came out" in text


@pytest.mark.parametrize("mistake", UNKNOWN)
def test_an_unknown_mistake_gets_the_example(checked, mistake):
    name, old, new = UNKNOWN[mistake]
    status, texts = checked([(name, old, new)], tasks=[name] if name in FURTHER else [])
    text = " ".join(texts[name].split())
    assert status == 1
    assert points(text)[0] == 0
    assert "No known mistake" in text
    assert ". Two images, " in text


def test_both_of_two_mistakes_are_named(checked):
    both = [("negative_elbo_bound", "(x, logits))", "(x, logits)) / 784")]
    both += [("kl_normal", " - dim)", ")")]
    text = " ".join(checked(both)[1]["negative_elbo_bound"].split())
    assert "averaged over the pixels" in text
    assert "-1 of each dimension is missing" in text


def test_a_mistake_costs_points_once(checked):
    wrong = [WRONG["the variance as the deviation"][:3]]
    status, texts = checked(wrong, pictures=True)
    assert status == 1
    assert [points(text)[0] for text in texts.values()] == [0, 6, 3]


def test_an_unwritten_function_is_named(checked):
    empty = [
        (
            name,
            text,
            " " * 4 * (1 + (name == "negative_elbo_bound"))
            + "raise NotImplementedError('later')\n",
        )
        for name, text in RIGHT.items()
    ]
    _, texts = checked(empty, tasks=FURTHER, pictures=True)
    for name in ("sample_gaussian", "negative_elbo_bound", "kl_normal"):
        assert f"{name} of " in texts[name]
        assert "is not written yet: later" in " ".join(texts[name].split())


@pytest.mark.parametrize(
    ("code", "call"), [("exit()", "exit()"), ("exit(3)", "exit(3)"), ("exit('no')", "exit(no)")]
)
def test_a_call_of_exit_is_named(checked, code, call):
    _, texts = checked([("sample_gaussian", "return m", f"{code}; return m")])
    assert call in texts["sample_gaussian"]


def test_a_missing_picture_is_named(checked):
    _, texts = checked(
        [("visualize_samples", RIGHT["visualize_samples"], "    return\n")], pictures=True
    )
    assert "save_path" in texts["visualize_samples"]


@pytest.mark.parametrize("place", ["codebase/models", "models", "."])
def test_files_are_found_in_a_project_or_alone(capsys, tmp_path, place):
    folder, wrong = tmp_path / "sent", STUDENTS / "rsample" / "vae.py"
    (folder / place).mkdir(parents=True)
    above = folder / place if place == "." else (folder / place).parent
    shutil.copy(STUDENTS / "rsample" / "utils.py", above)
    (folder / place / "vae.py").write_text(wrong.read_text().replace("kl + rec", "rec"))
    assert check.main([str(folder)]) == 1
    text = capsys.readouterr().out
    assert "the KL is missing in NELBO" in text
    assert "sample_gaussian: 3 of 3" in text


def test_the_two_files_alone_are_checked_without_task_4(capsys, tmp_path):
    assert check.main([str(STUDENTS / "rsample"), "--results", str(tmp_path / "file")]) == 0
    text = capsys.readouterr().out
    assert "task 4 is not checked" in text
    tests = json.loads((tmp_path / "file").read_text())["tests"]
    assert [test["score"] for test in tests] == [3, 6]


def test_only_the_students_three_files_are_used(capsys, tmp_path):
    for name in ("codebase", "assignment"):
        shutil.copytree(ROOT / name, tmp_path / "sent" / name)
    for path in (tmp_path / "sent").rglob("*.py"):
        if path.relative_to(tmp_path / "sent").as_posix() not in (UTILS, VAE, VISUALIZE):
            path.write_text("raise SystemExit(0)")
    (tmp_path / "sent" / "assignment" / "numbers.json").write_text("{}")
    assert check.main([str(tmp_path / "sent")]) == 0
    assert capsys.readouterr().out.count("is correct") == 3


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ((100.2, 19.3, 80.9), "is correct"),
        ((98.1, 17.6, 80.1), "is correct"),
        ((102.3, 19.3, 83.0), "NELBO: came out 102.3000, should be 100±2"),
        ((206.92, 0.0, 206.92), "nothing passes through z"),
        ((88.95, 11.59, 77.36), "v is used as the deviation"),
        ((77.62, 3.42, 74.19), "the KL is averaged over the dimensions"),
    ],
)
def test_the_bounds_of_a_run_are_checked(checked, capsys, tmp_path, bounds, words):
    shutil.copytree(STUDENTS / "rsample", tmp_path / "sent")
    folder = RunFolder(Settings(), tmp_path / "sent" / "checkpoints")
    folder.path.mkdir(parents=True)
    others = Bounds(3.0, 1.0, 2.0)
    for step, measured in ((10_000, others), (20_000, Bounds(*bounds))):
        write_results(folder, step, Measured(measured, others), [1.0], {})
    status = check.main([str(tmp_path / "sent"), "--run", folder.path.name])
    text = " ".join(capsys.readouterr().out.split())
    assert words in text
    assert status == (words != "is correct")
    assert f"train: {0 if status else 3} of 3 points" in text


def test_a_missing_run_is_named(checked):
    status, texts = checked(run=["--run", "model=vae_z=10_run=0007"])
    assert status == 1
    assert "no folder" in " ".join(texts["train"].split())


def test_results_have_the_form_of_gradescope(checked, tmp_path):
    """Source: https://gradescope-autograders.readthedocs.io/en/latest/specs/"""
    file = tmp_path / "results.json"
    status, texts = checked([WRONG["REC - KL"][:3]], run=["--results", str(file)], pictures=True)
    results = json.loads(file.read_text())
    assert status == 1
    assert set(results) == {"tests"}
    for test, (name, text) in zip(results["tests"], texts.items(), strict=True):
        assert set(test) == {"name", "score", "max_score", "status", "output"}
        assert test["name"].endswith(name)
        assert [test["score"], test["max_score"]] == points(text)
        assert test["status"] == ("passed" if test["score"] == test["max_score"] else "failed")
        assert test["output"].strip() in text
    assert [test["score"] for test in results["tests"]] == [3, 0, 3]


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--results", "nowhere/results.json"]])
def test_a_missing_folder_is_named(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        check.main(arguments)
    assert stop.value.code == 2
    assert re.fullmatch("assignment.check: argument .*: nowhere.*\n", capsys.readouterr().err)


def test_a_folder_without_the_files_is_refused(tmp_path, capsys):
    (tmp_path / "inner" / "codebase").mkdir(parents=True)
    (tmp_path / "inner" / "codebase" / "utils.py").touch()
    with pytest.raises(SystemExit, match="2"):
        check.main([str(tmp_path)])
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"{tmp_path} has no utils.py" in message
