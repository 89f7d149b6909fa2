"""Right and wrong solutions, each checked as on the command line."""

import json
import re
import shutil

import pytest
import torch
from wrong_solutions import BY_DISTRIBUTIONS, IW, RIGHT, UNKNOWN, VS, WRONG

from assignment import ROOT, TASKS, VISUALIZE, check, judging
from codebase.models.vae import VAE

pytestmark = pytest.mark.slow
STUDENTS = ROOT / "tests" / "solutions"
FILES = {task.name: task.file for task in TASKS}
FURTHER = [task.name for task in TASKS if not task.number]


@pytest.fixture
def checked(capsys, tmp_path):
    """Check a solution with replacements in it, and return the status and the text of each task.

    Task 4 takes long, so it is left out unless `pictures` is true.
    """

    def checked(replacements=(), solution="randn_like_v", options=(), pictures=False):
        folder = tmp_path / "sent"
        shutil.copytree(STUDENTS / solution, folder, dirs_exist_ok=True)
        if pictures:
            shutil.copy(ROOT / VISUALIZE, folder)
        for name, old, new in replacements:
            file = folder / FILES[name].split("/")[-1]
            text = file.read_text()
            assert text.count(RIGHT[name]) == 1 and old in RIGHT[name]
            file.write_text(text.replace(RIGHT[name], RIGHT[name].replace(old, new)))
        status = check.main([str(folder), *options])
        text = capsys.readouterr().out
        found = re.findall(r"(?ms)^(?:Task \d|Further task), (\w+): (.*?)\n\n", text)
        return status, {name: " ".join(result.split()) for name, result in found}

    return checked


def points(text):
    """The points that a task got, and the points that it is worth."""
    return [int(number) for number in re.match(r"(\d+) of (\d+) points", text).groups()]


def test_a_right_solution_gets_all_points(checked):
    _, texts = checked([BY_DISTRIBUTIONS], options=["--tasks", *FURTHER])
    assert {*texts} == {*FILES} - {"train", "visualize_samples"}
    assert all(len({*points(text)}) == 1 for text in texts.values())


def test_functions_that_are_missing_cost_their_own_points_alone(checked):
    _, texts = checked(solution="bare", options=["--tasks", *FURTHER], pictures=True)
    assert {*texts} == {*FILES} - {"train"}
    missing = {name for name, text in texts.items() if len({*points(text)}) > 1}
    assert missing == {"log_normal", "negative_iwae_bound"}
    assert all(f"has no {name}" in texts[name] for name in missing)


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_is_named(checked, mistake):
    name, old, new, words = WRONG[mistake]
    options = ["--only", name]
    status, texts = checked([(name, old, new)], options=options, pictures="visual" in name)
    assert status == 1 and points(texts[name])[0] < points(texts[name])[1]
    assert words in texts[name] and "no known mistake" not in texts[name]


@pytest.mark.parametrize("mistake", UNKNOWN)
def test_an_unknown_mistake_is_told_by_its_numbers(checked, mistake):
    name, old, new = UNKNOWN[mistake]
    _, texts = checked([(name, old, new)], options=["--only", name])
    assert "no known mistake" in texts[name] and "should be" in texts[name]


def test_a_hand_out_names_mistakes_without_our_solution(checked, monkeypatch):
    monkeypatch.setattr(judging, "HAS_SOLUTION", False)
    monkeypatch.setattr(judging, "SEED", 0)
    both = [("negative_elbo_bound", "rec + kl", "rec"), ("kl_normal", " - dim)", ")")]
    _, texts = checked(both, options=["--tasks", "kl_normal"])
    assert "the KL is missing in NELBO" in texts["negative_elbo_bound"]
    assert "-1 of each dimension is missing" in texts["kl_normal"]
    assert points(texts["sample_gaussian"]) == [3, 3]


def test_two_mistakes_are_named_and_each_costs_its_part(checked):
    both = [("negative_elbo_bound", "(x, logits))", "(x, logits)) / 784")]
    both += [("kl_normal", " - dim)", ")")]
    text = checked(both)[1]["negative_elbo_bound"]
    assert "averaged over the pixels" in text and "-1 of each dimension is missing" in text
    assert points(text) == [2, 6]  # NELBO is the sum of both, and has its gradients.


@pytest.mark.parametrize("mistakes", [["the mean decoded"], ["a logarithm", "a missing -1"]])
def test_a_part_that_no_other_task_makes_wrong_costs_its_points(checked, mistakes):
    """The first costs those of REC; kl_normal is no task here, so it costs those of KL."""
    _, texts = checked([WRONG[name][:3] for name in mistakes])
    assert points(texts["negative_elbo_bound"]) == [4, 6]


@pytest.mark.parametrize(
    "mistake", [".sample()", "the variance as the deviation", "a missing -1", "-1 once"]
)
def test_a_mistake_costs_points_once(checked, mistake):
    name, *change = WRONG[mistake][:3]
    _, texts = checked([(name, *change)], options=["--tasks", "kl_normal"])
    assert points(texts.pop(name))[0] == 0
    assert all(len({*points(text)}) == 1 for text in texts.values())


def test_a_gradient_that_a_wrong_function_leaves_right_costs_its_point(checked):
    wrong = "kl_normal", "dim = qm", "pm, pv = 0 * qm, 0 * qv + 1; dim = qm"
    detached = "negative_elbo_bound", "rec + kl", "rec + kl.detach()"
    _, texts = checked([wrong, detached], options=["--tasks", "kl_normal"])
    assert [points(texts[name])[0] for name, *_ in (wrong, detached)] == [0, 5]


@pytest.mark.parametrize("x", ["x.maximum(model.sample_x(200))", "model.sample_x_given(1.7 * z)"])
def test_a_mistake_does_not_excuse_another_one_in_a_function_that_calls_it(checked, x):
    picture = VS, "x = ", f"z = model.sample_z(200); x = model.sample_x(200); x = {x}  # "
    _, texts = checked([WRONG["the variance as the deviation"][:3], picture], pictures=True)
    assert points(texts[VS])[0] == 0


@pytest.mark.parametrize("other, is_named", [("a missing -1", 1), ("a logarithm", 0)])
def test_a_mistake_in_the_weights_is_named_if_no_other_one_changes_them(checked, other, is_named):
    mistakes = [WRONG[other][:3], (IW, "ut.log_mean_exp", "torch.logsumexp")]
    text = checked(mistakes, options=["--tasks", "kl_normal", IW])[1][IW]
    assert ("summed over the samples" in text) == is_named == ("no known mistake" not in text)


def test_a_picture_without_a_title_is_refused(tmp_path, capsys):
    shutil.copytree(STUDENTS / "bare", tmp_path, dirs_exist_ok=True)
    (tmp_path / "visualize.py").write_text("def visualize_samples(model, save_path): 1 / 0")
    assert check.main([str(tmp_path), "--only", VS]) == 1
    assert "title" in capsys.readouterr().out


def test_an_unwritten_function_is_named(checked):
    indent = {name: " " * 4 * (1 + ("bound" in name)) for name in RIGHT}
    empty = [(x, RIGHT[x], f"{indent[x]}raise NotImplementedError('later')\n") for x in RIGHT]
    _, texts = checked(empty, options=["--tasks", "kl_normal"], pictures=True)
    for name, text in texts.items():
        assert points(text)[0] == 0 and f"{name} is not written yet: later" in text


@pytest.mark.parametrize("place", ["codebase/models", "models", "."])
def test_a_folder_may_follow_the_tasks(capsys, tmp_path, place):
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    shutil.copy(STUDENTS / "bare" / "utils.py", tmp_path / place)
    assert check.main(["--tasks", "kl_normal", str(tmp_path)]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "kl_normal: 3 of 3" in text and "vae.py was not sent" in text


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_run_is_judged_by_its_model(tmp_path, capsys, is_trained, monkeypatch):
    """The measured bounds count, whatever a file says."""
    shutil.copytree(STUDENTS / "randn_like_v", tmp_path / "sent")
    other, run = (tmp_path / f"sent/checkpoints/model=vae_z=10_run=000{i}" for i in (0, 1))
    for folder in (other, run):
        folder.mkdir(parents=True)
        torch.save(VAE(z_dim=10).state_dict(), folder / "model-20000.pt")
    (run / "metrics.csv").write_text("step,images,nelbo,kl,rec\n20000,test,100,19.5,80.5\n")
    if is_trained:
        bounds = {"bounds": torch.tensor([100.2, 19.3, 80.9])}
        of_model = {(run / "model-20000.pt").read_bytes(): bounds}
        monkeypatch.setattr(judging, "measure_run", lambda x, _: of_model[x.read_bytes()])
    status = check.main(["--only", "train", "--run", run.name, str(tmp_path / "sent")])
    text = " ".join(capsys.readouterr().out.split())
    assert status == (not is_trained) and f"train: {3 * is_trained} of 3 points" in text


def test_results_are_complete_from_the_start(checked, tmp_path, monkeypatch):
    """Source: https://gradescope-autograders.readthedocs.io/en/latest/specs/"""
    file = tmp_path / "results.json"
    scores = []
    write = check.write_atomically

    def recorded(path, content):
        write(path, content)
        results = json.loads(file.read_text())
        assert {"output", "tests"} <= set(results)
        scores.append([test["score"] for test in results["tests"]])

    monkeypatch.setattr(check, "write_atomically", recorded)
    checked([WRONG["REC - KL"][:3]], options=["--results", str(file)])
    assert scores == [[0, 0, 0], [3, 0, 0], [3, 5, 0], [3, 5, 0]]
    found = [(x["max_score"], x["status"]) for x in json.loads(file.read_text())["tests"]]
    assert found == [(3, "passed"), (6, "failed"), (3, "failed")]


def test_the_numbers_of_each_dimension_are_shown(capsys):
    assert check.main(["--show", "kl_normal", str(STUDENTS / "randn_like_v")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if re.match(" {4}[123] ", line)]
    assert [row[-1] == row[-2] for row in rows] == [True] * 6


@pytest.mark.parametrize("mistake", [("dim)", "dim).mean()"), ("return ", "z = ")])
def test_a_result_of_a_wrong_shape_or_none_is_shown(checked, mistake):
    assert checked([("kl_normal", *mistake)], options=["--show", "kl_normal"])[0] == 0


@pytest.mark.parametrize("arguments", [["nowhere"], [".", "--results", "nowhere/results.json"]])
def test_a_missing_folder_is_named(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        check.main(arguments)
    assert stop.value.code == 2
    assert re.fullmatch("assignment.check: argument .*\n", capsys.readouterr().err)
