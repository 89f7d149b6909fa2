"""The command line: a run, its report, and what happens if something is missing or fails."""

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SCRIPT, command_line

import run_vae as program
from codebase import evaluate, utils, visualize
from codebase.compute.processor import ONE_OF_SEVERAL
from codebase.models.vae import VAE
from codebase.runs.folder import RunFolder
from codebase.settings import Settings
from codebase.system.seeds import seeded
from codebase.train import train

CPU = torch.device("cpu")
SMALL = Settings("tiny", 3, dataset="synthetic", iter_max=30)
RUN = RunFolder(SMALL)


def lines_with(words, finished):
    return [line for line in finished.stdout.splitlines() if words in line]


def sentence_of(finished, status):
    """The sentence with which the command failed."""
    assert finished.returncode == status and "Traceback" not in finished.stderr, finished.stderr
    sentence = finished.stderr.splitlines()[-1]
    assert sentence.startswith("run_vae.py: ")
    return sentence


@pytest.fixture(scope="module")
def run(tmp_path_factory, small):
    """A run that was trained and then loaded: its folder, and what the two commands printed."""
    folder, bounds, measured, modes = tmp_path_factory.mktemp("run"), evaluate.bounds, [], []

    def write_all(model, *_):
        modes.append((model.training, torch.is_grad_enabled()))

    with pytest.MonkeyPatch.context() as patch:
        command = command_line(folder, patch)
        patch.setattr(evaluate, "bounds", lambda *given: measured.append(1) or bounds(*given))
        patch.setattr("codebase.pictures.gallery.write_all", write_all)
        trained = command(*small, "--iter_save", 20, "--figures", 1, "--train", 2, "--iwae", 20)
        results = json.loads(RUN.results(30).read_text())
        loaded = command(*small, "--train", 0)
        assert json.loads(RUN.results(30).read_text()) == results  # with the seconds of training
        model = VAE(nn="tiny", z_dim=3)
        model.load_state_dict(torch.load(RUN.model(30)))
        picture = (RUN.path / "visualizing_result.png").read_bytes()
    assert (trained.returncode, loaded.returncode) == (0, 0), trained.stderr + loaded.stderr
    # Each model is measured once: those of the steps 20 and 30, and the loaded one.
    assert (len(measured), modes) == (2 * 3, [(False, False)])
    finished = {"trained": trained, "loaded": loaded}
    return SimpleNamespace(**finished, model=model, results=results, picture=picture)


@pytest.mark.slow
def test_a_run_prints_what_it_does_and_its_bounds(run, synthetic_images):
    assert run.trained.stdout.splitlines()[:6] == [
        "Arguments: --z 3 --iter_max 30 --iter_save 20 --train 2 --nn tiny --dataset synthetic "
        "--iwae 20 --figures 1",
        f"Model name: {SMALL.name}",
        "Device: cpu",
        "Data: synthetic, 600 training and 300 test images",
        f"Saved to {RUN.model(20)}",
        f"Saved to {RUN.model(30)}",
    ]
    assert all(part in run.trained.stderr for part in ("run 0: 100%", "30/30", "loss="))
    subset, everything, *_ = evaluate.measure(run.model, synthetic_images)
    line = "NELBO: {0.nelbo:.2f}{1}. KL: {0.kl:.2f}. REC: {0.rec:.2f}  (synthetic, {2} test images)"
    of_all = line.format(everything, f" ± {everything.error:.2f}", "all 300")
    assert lines_with("NELBO", run.trained) == [line.format(subset, "", "100"), of_all]
    assert lines_with("NELBO", run.loaded) == lines_with("NELBO", run.trained)
    assert lines_with("Saved to", run.loaded) == []
    assert run.results["all test"]["NELBO"] == everything.nelbo and run.results["seconds"] > 0


@pytest.mark.slow
def test_a_run_writes_its_picture_into_its_folder(run, tmp_path):
    """Only a run of the assignment's settings also leaves it in the current folder."""
    place = RUN.path / "visualizing_result.png"
    assert lines_with("Visualization", run.trained) == [f"Visualization saved at {place}"]
    with seeded(evaluate.SEED, CPU):
        visualize.visualize_samples(run.model, save_path=tmp_path / "a.png", title=SMALL.title)
    assert (tmp_path / "a.png").read_bytes() == run.picture


@pytest.mark.slow
def test_further_measurements_are_printed_and_saved(run, synthetic_images):
    model, results = run.model, run.results
    subset, everything = synthetic_images.subset_bits, synthetic_images.test_bits
    samples = (1, 10, 100, 1000)
    bounds = [evaluate.negative_iwae(model, subset, number) for number in samples]
    assert results["negative IWAE"] == dict(zip(map(str, samples), bounds, strict=True))
    end = "  (synthetic, 100 test images)"
    lines = [f"Negative IWAE-{n}: {x:.2f}{end}" for n, x in zip(samples, bounds, strict=True)]
    assert lines_with("IWAE", run.loaded) == lines_with("IWAE", run.trained)[:4] == lines
    of_dimensions = evaluate.kl_of_dimensions(model, subset).tolist()
    assert results["KL of each latent dimension"] == of_dimensions
    bound, error = evaluate.iwae_and_error(model, everything, 20)
    bits, active = bound / 784 / math.log(2), evaluate.active_units(model, everything)
    (found,) = results["negative IWAE of all test images"].values()
    assert [*found.values()] == pytest.approx([bound, error, bits, active])
    line = f"Negative IWAE-20: {bound:.2f} ± {error:.2f}  (synthetic, all 300 test images)"
    assert lines_with("IWAE", run.trained)[4:] == [line]
    line = f"Active units: {active} of 3. Bits per dimension: {bits:.4f}"
    assert lines_with("Active", run.trained) == [line]


@pytest.mark.slow
def test_every_option_reaches_the_run(run_vae, small, synthetic_images):
    options = "--z 2 --iter_max 12 --iter_save 5 --batch_size 7 --run 4 --lr 5e-4 "
    options += "--lr_schedule linear --kl_weight 2.5 --valid 90"
    finished = run_vae(*small, *options.split())
    assert finished.returncode == 0, finished.stderr
    chosen = Settings("tiny", 2, 7, 5e-4, "linear", 2.5, 12, "synthetic", 90, 4)
    folder = RunFolder(chosen)
    models = [folder.model(step).read_bytes() for step in (5, 10, 12)]
    assert lines_with("510 training, 90 validation and 300 test images", finished)
    assert len(lines_with("NELBO", finished)) == 3 and not lines_with("IWAE", finished)
    train(chosen, synthetic_images.hold_out(90), CPU, iter_save=5)  # moves that run aside
    assert models == [folder.model(step).read_bytes() for step in (5, 10, 12)]


@pytest.mark.slow
@pytest.mark.parametrize("alone", [True, False])
def test_a_run_of_the_assignment_also_writes_its_picture_and_page(run_vae, monkeypatch, alone):
    """The data set and the number of the run do not matter, but one of several runs does not."""
    if not alone:
        monkeypatch.setenv(ONE_OF_SEVERAL, "1")
    page = ("--explorer", int(alone))
    finished = run_vae("--dataset", "synthetic", "--iter_max", 1, "--run", 3, *page)
    [folder] = Path("checkpoints").glob("*_run=0003")
    picture, page = Path("visualizing_result.png"), folder / "explorer.html"
    assert picture.exists() == page.exists() == alone
    if alone:
        assert picture.read_bytes() == (folder / picture).read_bytes()
        assert lines_with(f"Explorer saved at {page}", finished)
        assert "z = 10, run 3, 1 steps" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ("--train 0", 1, f"no checkpoint {RUN.model(30)}"),
        ("--valid 600", 2, "--valid"),
        ("--batch_size 601", 2, "600"),
        # A folder that is named and has no MNIST is perhaps a slip of typing, and the shell does
        # not expand --data_dir=~/mnist.
        pytest.param(
            *("--dataset auto --data_dir=~/mnist", 1, "/home/mnist/MNIST/raw"),
            marks=pytest.mark.slow,  # It imports torchvision.
        ),
        ("--compare", 1, "no finished runs"),
        ("--device cuda:99", 2, "cuda:99"),
    ],
)
def test_a_fault_of_the_user_is_one_sentence(run_vae, small, monkeypatch, arguments, status, words):
    monkeypatch.setenv("HOME", "/nowhere/home")
    assert words in sentence_of(run_vae(*small, *arguments.split()), status)
    assert not [*Path().iterdir()]


@pytest.mark.slow
def test_auto_trains_on_synthetic_digits_without_a_network(run_vae, small):
    """Here the folder of the download cannot be created either."""
    Path("data").mkdir()
    Path("data", "MNIST").write_text("a file")
    finished = run_vae(*small, "--dataset", "auto")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("Warning: ") == 1 and "--data_dir" in finished.stderr
    # The run's name has the data set, so that the model is not measured on MNIST later.
    assert [path.name for path in Path("checkpoints").glob("model*")] == [RUN.path.name]


@pytest.mark.slow
def test_a_report_continues_after_a_fault(run_vae, small, monkeypatch):
    """A picture cannot be written, and a bound overflows."""
    (RUN.path / "interpolation.png").mkdir(parents=True)
    monkeypatch.setattr(utils, "log_mean_exp", lambda x, dim: x.exp().mean(dim).log())
    finished = run_vae(*small, "--train", 2, "--figures", 1)
    assert finished.returncode == 3
    overflow, picture = (x for x in finished.stderr.splitlines() if x.startswith("run_vae.py"))
    assert "log_mean_exp" in overflow and f"{RUN.path}/interpolation.png" in picture
    assert len(lines_with("NELBO", finished)) == 2
    found = json.loads(RUN.results(30).read_text(), parse_constant=pytest.fail)
    assert found["negative IWAE"] == {}
    assert len([path for path in RUN.path.glob("*.png") if path.is_file()]) == 4


@pytest.mark.slow
def test_a_model_whose_bounds_are_not_finite_is_not_reported(run_vae, small, monkeypatch):
    assert run_vae(*small).returncode == 0
    monkeypatch.setattr(utils, "kl_normal", lambda qm, qv, pm, pv: qm.sum(-1) * torch.inf)
    finished = run_vae(*small, "--train", 0)
    assert "not finite" in sentence_of(finished, 1)
    assert not lines_with("NELBO", finished)


def test_ctrl_c_before_the_training_is_one_sentence(run_vae, small, monkeypatch):
    def non_defaults(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "non_defaults", non_defaults)
    assert "interrupted" in sentence_of(run_vae(*small), 130)


@pytest.mark.parametrize(("arguments", "status"), [([], 1), (["--help"], 0), (["--z", "0"], 2)])
def test_a_library_that_is_not_installed_is_named(start, arguments, status):
    """Wrong arguments and --help are answered without the slow libraries."""
    hide = "import runpy, sys; sys.modules |= dict.fromkeys(('torch', 'numpy', 'matplotlib'))"
    command = f"{hide}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parent)}
    process = start("-c", command, SCRIPT, *arguments, env=environment)
    _, errors = process.communicate()
    assert process.returncode == status
    assert ("pip install -r requirements.txt" in errors) == (status == 1)
    assert errors.count("\n") == (status > 0)


@pytest.mark.slow
def test_the_script_runs_with_any_encoding_and_a_reader_that_goes_away(start, script, small):
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    process = start(script, *small, "--data_dir", "dätä", env=environment)
    assert " --data_dir d\\xe4t\\xe4\n" in process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait() == 1
    assert errors.splitlines()[-1].startswith("run_vae.py: ") and "Broken pipe" in errors
