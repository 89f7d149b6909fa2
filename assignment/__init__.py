"""The assignment: its tasks, the hand-out, and the checks of students' solutions."""

from collections import namedtuple
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
UTILS, VAE, VISUALIZE = "codebase/utils.py", "codebase/models/vae.py", "codebase/visualize.py"
FILES = (UTILS, VAE, VISUALIZE)  # Each file imports those before it.
# A function to write in a file, or a run to train. Number 0: a further task of longer courses.
Task = namedtuple("Task", "name number points file summary")
TASKS = (
    Task("sample_gaussian", 1, 3, UTILS, "sample z from a Gaussian, so that gradients reach m, v"),
    Task("negative_elbo_bound", 2, 6, VAE, "compute the bound and its two parts"),
    Task("train", 3, 3, "", "train for 20,000 steps with z = 10"),
    Task("visualize_samples", 4, 3, VISUALIZE, "plot two hundred samples"),
    Task("kl_normal", 0, 3, UTILS, "compute the KL of two Gaussians in closed form"),
    Task("log_bernoulli_with_logits", 0, 2, UTILS, "compute the log probability of pixels"),
    Task("log_normal", 0, 2, UTILS, "compute the log density of a Gaussian"),
    Task("negative_iwae_bound", 0, 5, VAE, "compute the importance-weighted bound"),
    Task("sample_x", 0, 2, VAE, "sample images from the model"),
)
FURTHER = [task.name for task in TASKS if not task.number]
TASKS_OPTION: dict[str, Any] = dict(nargs="+", choices=FURTHER, default=[], metavar="TASK")
TASKS_OPTION["help"] = f"further tasks to include: {', '.join(FURTHER)}"
