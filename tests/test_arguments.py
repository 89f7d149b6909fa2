"""The options of the command line."""

import re
from inspect import signature

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def test_help_shows_every_default(run_vae):
    finished = run_vae("--help")
    assert finished.returncode == 0
    words = " ".join(finished.stdout.partition("options:")[2].split())
    for option, default in DEFAULTS.items():
        shown = re.search(rf" --{option} \S+ .*?\(default: (\S+)\)", words)
        assert shown[1] == str(default)


def test_the_defaults_are_those_of_the_readme():
    assert vars(parse_arguments([])) == DEFAULTS
    assert {key: DEFAULTS[key] for key in Settings._fields} == Settings(dataset="auto")._asdict()


def test_iter_save_has_the_same_default_in_python():
    assert parse_arguments([]).iter_save == signature(train).parameters["iter_save"].default


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--z", "0"], "--z: must be a whole number from 1"),
        (["--z", "1001"], "--z: must be a whole number from 1 to 1000, not '1001'"),
        (["--z", "ten"], "not 'ten'"),
        (["--z", "9" * 5000], "--z: must be"),
        (["--iter_max", "0"], "--iter_max: must be"),
        (["--iter_max", "1.5"], "--iter_max: must be a whole number from 1 to 1000000000, not"),
        (["--iter_save", "-1"], "--iter_save: must be"),
        (["--kl_weight", "-0.1"], "--kl_weight: must be a number from 0 to"),
        (["--run", "-1"], "--run: must be a whole number from 0"),
        (["--batch_size", "0"], "--batch_size: must be"),
        (["--train", "yes"], "--train: must be a whole number from 0 to "),
        (["--dataset", "cifar"], "--dataset: must be auto, mnist, fashion"),
        (["--nn", "v0"], "v1, watched, not 'v0'"),
        (["--device", "gpu"], "--device: must be auto, cpu, cuda, "),
        (["--device", "cuda:99"], "--device: this machine has no device 'cuda:99'"),
        (["--lr", "0"], "--lr: must be a number from 1e-09 to 1000000000, not '0'"),
        (["--lr", "nan"], "not 'nan'"),
        (["--lr", "1e999"], "--lr: must be"),
        (["--lr_schedule", "cosine"], "--lr_schedule: must be constant, linear, not 'cosine'"),
        (["--runs", "0"], "--runs: must be a whole number from 1"),
        (["--resume", "2"], "--resume: must be a whole number from 0 to 1"),
        (["--verbose", "5"], "unknown argument --verbose; see --help"),
        (["--iter_max", "1e99"], "not '1e99'\n"),
        (["--run", "-1.0"], "not '-1.0'\n"),
        (["--train", "3"], "--train: must be a whole number from 0 to 2"),
    ],
)
def test_a_wrong_argument_is_one_sentence(run_vae, tmp_path, arguments, part):
    finished = run_vae(*arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith("run_vae.py: ")
    assert part in finished.stderr
    assert finished.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    option=st.sampled_from(sorted(DEFAULTS)),
    value=st.one_of(st.text(max_size=30), st.integers().map(str), st.floats().map(str)),
)
def test_any_value_is_accepted_or_refused_with_a_sentence(capsys, option, value):
    try:
        parsed = getattr(parse_arguments([f"--{option}={value}"]), option)
    except SystemExit as stop:
        assert stop.code == 2
        assert capsys.readouterr().err.startswith(f"run_vae.py: argument --{option}: ")
    else:
        assert parsed == value or 0 <= parsed < float("inf")


@pytest.mark.parametrize(("text", "value"), [("2e4", 20000), ("10.0", 10), ("0.5e1", 5)])
def test_a_whole_number_may_have_an_exponent_or_a_decimal_point(text, value):
    parsed = parse_arguments(["--iter_max", text]).iter_max
    assert (parsed, type(parsed)) == (value, int)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        *[
            ("--seed", "run"),
            ("--seeds", "run"),
            ("--steps=9", "iter_max"),
            ("--max-steps", "iter_max"),
        ],
        *[("--epochs", "iter_max"), ("--num_epochs", "iter_max"), ("--iter", "iter_max")],
        *[("--learning-rate", "lr"), ("--lr_scheduler", "lr_schedule"), ("--batch", "batch_size")],
        *[("--beta", "kl_weight"), ("--kl", "kl_weight"), ("--KL", "kl_weight"), ("-z", "z")],
        *[("--z_dim", "z"), ("--latent_dim", "z"), ("--gpu", "device cuda"), ("--eval", "train 0")],
        *[("--cpu", "device cpu"), ("--no-cuda", "device cpu"), ("train", "train")],
        *[("--save", "iter_save"), ("--network", "nn"), ("--num_workers", "jobs")],
    ],
)
def test_an_unknown_argument_is_answered_with_the_one_that_was_meant(capsys, typed, meant):
    with pytest.raises(SystemExit):
        parse_arguments([typed])
    answer = capsys.readouterr().err
    assert re.search(rf"did you mean --{meant}\b", answer)


@pytest.mark.parametrize(
    ("typed", "same"),
    [
        *[(f"--{name}", f"--{name}=1") for name in ("compare", "resume", "figures", "explorer")],
        ("--resume --runs 3", "--resume 1 --runs 3"),
        ("--iter-max 5 --data-dir=a-b", "--iter_max 5 --data_dir a-b"),
        ("--dataset MNIST --device CUDA:1", "--dataset mnist --device cuda:1"),
    ],
)
def test_options_may_be_written_in_several_ways(typed, same):
    assert parse_arguments(typed.split()) == parse_arguments(same.split()) != parse_arguments([])


def test_the_version_is_printed(run_vae):
    finished = run_vae("--version")
    assert (finished.returncode, finished.stdout) == (0, f"vae-mnist {VERSION}\n")


def test_help_fits_into_the_terminal(run_vae, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, run_vae("--help").stdout.splitlines())) <= 80


def test_kl_weight_may_be_below_1_and_0():
    assert parse_arguments(["--kl_weight", "0.5"]).kl_weight == 0.5
    assert parse_arguments(["--kl_weight", "0"]).kl_weight == 0
