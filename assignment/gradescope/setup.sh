#!/usr/bin/env bash
# Gradescope runs this script once, in /autograder/source, where it has unpacked the archive.
set -euo pipefail
apt-get update
apt-get install --yes python3-venv
python3 -m venv /autograder/venv
pip="/autograder/venv/bin/pip install --no-cache-dir"
$pip torch torchvision --index-url https://download.pytorch.org/whl/cpu
$pip -r /autograder/source/handout/requirements.txt
