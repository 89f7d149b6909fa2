"""The options of the command line."""

import re
from inspect import signature

import pytest

from codebase.arguments import parse_arguments
from codebase.settings import VERSION, Settings
from codebase.train import train

DEFAULTS = {
    "cuda_graph": 1,
    **{"z": 10, "iter_max": 20000, "iter_save": 10000, "run": 0, "train": 1, "resume": 0},
    **{"nn": "v1", "batch_size": 100, "lr": 0.001, "lr_schedule": "constant", "kl_weight": 1.0},
    **{"dataset": "auto", "data_dir": "data", "valid": 0, "iwae": 0, "runs": 1, "jobs": 0},
    **{"compare": 0, "figures": "0", "explorer": 0, "device": "auto"},
}


def test_the_defaults_are_those_of_the_assignment_and_of_python():
    assert vars(parse_arguments([])) == DEFAULTS
    assert {key: DEFAULTS[key] for key in Settings._fields} == Settings(dataset="auto")._asdict()
    assert DEFAULTS["iter_save"] == signature(train).parameters["iter_save"].default


def test_help_shows_every_default_and_fits_into_the_terminal(run_vae, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    finished = run_vae("--help")
    assert finished.returncode == 0
    assert max(map(len, finished.stdout.splitlines())) <= 80
    words = " ".join(finished.stdout.partition("options:")[2].split())
    for option, default in DEFAULTS.items():
        shown = re.search(rf" --{option} \S+ .*?\(default: (\S+)\)", words)
        assert shown[1] == str(default)
    assert run_vae("--version").stdout == f"vae-mnist {VERSION}\n"


@pytest.mark.parametrize(
    ("option", "values", "known"),
    [
        ("z", ["0", "1001", "ten", "9" * 5000, "1.5"], "1 to 1000,"),
        ("iter_max", ["0", "1.5", "1e99", "nan", "inf"], "1 to 1000000000,"),
        *[(name, ["-1", "0"], "1 to") for name in ("iter_save", "batch_size", "runs")],
        *[(name, ["-1", "-1.0"], "0 to") for name in ("run", "valid", "iwae", "jobs", "kl_weight")],
        *[(name, ["2"], "0 to 1,") for name in ("resume", "compare", "explorer", "cuda_graph")],
        ("train", ["yes", "3"], "0 to 2,"),
        ("lr", ["0", "nan", "1e999"], "1e-09 to"),
        ("lr_schedule", ["cosine"], "constant or linear,"),
        ("figures", ["2", "png"], "pdf"),
        ("dataset", ["cifar"], "auto or mnist or fashion"),
        ("nn", ["v0", "v1x"], "v1"),
        ("device", ["gpu", "cuda:x"], "auto or cpu or cuda "),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_known(capsys, option, values, known):
    for value in values:
        with pytest.raises(SystemExit) as stop:
            parse_arguments([f"--{option}", value])
        output, errors = capsys.readouterr()
        assert (stop.value.code, output, errors.count("\n")) == (2, "", 1)
        assert errors.startswith(f"run_vae.py: argument --{option}: ")
        assert known in errors and repr(value) in errors


MEANT = {
    **{"--seeds": "run", "--steps=9": "iter_max", "--num_epochs": "iter_max", "--iter": "iter_max"},
    **{"--learning-rate": "lr", "--lr_scheduler": "lr_schedule", "--KL": "kl_weight"},
    **{"-z": "z", "--latent_dim": "z", "--gpu": "device cuda", "--no-cuda": "device cpu"},
    **{"--eval": "train", "train": "train", "--network": "nn", "--num_workers": "jobs"},
}


def test_an_unknown_argument_is_answered_with_the_one_that_was_meant(capsys):
    for typed, meant in {**MEANT, "--verbose": "help"}.items():
        with pytest.raises(SystemExit):
            parse_arguments([typed])
        assert re.search(rf"(mean|see) --{meant}\b", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("typed", "same"),
    [
        *[(f"--{name}", f"--{name}=1") for name in ("compare", "resume", "figures", "explorer")],
        ("--iter-max 5 --data-dir=a-b --resume", "--resume 1 --iter_max 5 --data_dir a-b"),
        ("--dataset MNIST --device CUDA:1", "--dataset mnist --device cuda:1"),
        ("--iter_max 2e4 --z 0.5e1 --run 7.0", "--iter_max 20000 --z 5 --run 7"),
    ],
)
def test_options_may_be_written_in_several_ways(typed, same):
    expected = parse_arguments(same.split())
    assert str(parse_arguments(typed.split())) == str(expected) != str(parse_arguments([]))
