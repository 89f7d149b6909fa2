"""The settings of a run, and the name that identifies it."""

from typing import NamedTuple

from codebase.datasets.sources import SOURCES

VERSION = "1.0.0"  # the version of this program
WARM_UP = 100  # steps over which the linear schedule rises

# Each schedule maps (step, iter_max) to the factor of --lr.
SCHEDULES = {
    "constant": lambda step, iter_max: 1.0,
    "linear": lambda step, iter_max: min((step + 1) / WARM_UP, 1 - step / iter_max),
}


class Settings(NamedTuple):
    """All settings that determine the result of a run on a given machine.

    The defaults are the assignment's.
    """

    nn: str = "v1"
    z: int = 10
    batch_size: int = 100
    lr: float = 1e-3
    lr_schedule: str = "constant"
    kl_weight: float = 1.0
    iter_max: int = 20000
    dataset: str = "mnist"
    valid: int = 0
    run: int = 0

    def identity(self) -> dict[str, str | int | float]:
        """The settings that identify a run. Its name, resuming and loading use them.

        With a constant learning rate, a run of 10,000 steps is the beginning of one of 20,000, so
        iter_max is not part of its identity.
        """
        # kl_weight=4 and kl_weight=4.0 are one setting, and need one name.
        kinds = {key: type(default) for key, default in self._field_defaults.items()}
        settings = {key: kinds[key](value) for key, value in self._asdict().items()}
        if self.lr_schedule == "constant":
            del settings["iter_max"]
        return settings

    def changes(self) -> dict[str, str | int | float]:
        """The identity without the assignment's values. It always has z and run."""
        assignment = Settings()._asdict()
        return {
            key: value
            for key, value in self.identity().items()
            if key in ("z", "run") or value != assignment[key]
        }

    @property
    def name(self) -> str:
        """The name of the run and of its folder: "model=vae_z=10_run=0000"."""
        digits = {"z": 2, "run": 4}
        parts = (f"{key}={str(x).zfill(digits.get(key, 1))}" for key, x in self.changes().items())
        return "_".join(["model=vae", *parts])

    @property
    def title(self) -> str:
        """The settings as a picture's title: "z = 10, run 0, 20,000 steps, MNIST"."""
        last = ("run", "iter_max", "dataset")
        shown = [f"{key} = {x}" for key, x in self.changes().items() if key not in last]
        steps = f"{self.iter_max:,} steps"
        return ", ".join([*shown, f"run {self.run}", steps, dataset_title(self.dataset)])


def dataset_title(dataset: str) -> str:
    """The name of a data set in a picture's title."""
    titles = {name: source.title for name, source in SOURCES.items()}
    return (titles | {"synthetic": "synthetic digits"}).get(dataset, dataset)
