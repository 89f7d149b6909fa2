"""The benchmark."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "training_speed.py"


def training_speed(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_benchmark_prints_its_table(synthetic_dir):
    finished = training_speed("--dataset", "synthetic", "--data_dir", synthetic_dir, "--steps", "5")
    assert finished.returncode == 0, finished.stderr
    machine, _, _, _, conventional, project, products = finished.stdout.splitlines()
    assert "synthetic, 7 rounds of 5 steps" in machine
    assert conventional.startswith("| conventional loop |")
    assert conventional.endswith("| 1.00 |")
    ratios = [float(line.split("|")[-2]) for line in (project, products)]
    assert ratios == sorted(ratios)


def test_bad_input_to_the_benchmark_gets_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for arguments in [("--steps", "0"), ("--data_dir", tmp_path / "file"), ("--device", "abacus")]:
        finished = training_speed(*arguments)
        assert finished.returncode == 2
        assert len(finished.stderr.splitlines()) == 1
