"""What a run is: the settings that decide its result, and the name that is made of them."""

import re
from typing import Any, NamedTuple

VERSION = "1.0.0"  # of this program
WARM_UP = 100  # steps over which the linear schedule rises

# What the learning rate is multiplied with after `step` of `iter_max` steps.
SCHEDULES = {
    "constant": lambda step, iter_max: 1.0,
    "linear": lambda step, iter_max: min((step + 1) / WARM_UP, 1 - step / iter_max),
}


class Settings(NamedTuple):
    """All that decides how a run ends but for the machine. The defaults are the assignment's."""

    nn: str = "v1"
    z: int = 10
    batch_size: int = 100
    lr: float = 1e-3
    lr_schedule: str = "constant"
    kl_weight: float = 1.0
    iter_max: int = 20000
    dataset: str = "mnist"
    run: int = 0

    def deciding(self) -> dict[str, str | int | float]:
        """What decides a run's steps: its name, resuming and loading all go by this.

        With a constant rate the number of steps decides none that comes before it, so the models of
        all steps are of one run. With a falling rate it decides every step.
        """
        settings = self._asdict()
        if self.lr_schedule == "constant":
            del settings["iter_max"]
        return settings

    @property
    def name(self) -> str:
        """The name of the run and of its folder."""
        return "_".join(["model=vae", *self.parts])

    @property
    def parts(self) -> list[str]:
        """What the name says, the run last; but for z and run, what is the assignment's is not."""
        assignment, parts = Settings(), []
        for key, value in self.deciding().items():
            if key == "z":
                parts.append(f"z={value:02d}")
            elif key == "run":
                parts.append(f"run={value:04d}")
            elif value != getattr(assignment, key):
                kind = type(getattr(assignment, key))  # a weight of 4 is one of 4.0
                parts.append(f"{key}={kind(value)}")
        return parts

    @classmethod
    def named(cls, name: str) -> "Settings | None":
        """The settings of a run of that name, as far as it tells them; None if no run has it."""
        kinds = {key: type(value) for key, value in cls()._asdict().items()}
        _, *parts = re.split(rf"_(?=(?:{'|'.join(kinds)})=)", name)
        values: dict[str, Any] = dict(part.split("=", 1) for part in parts)
        try:
            settings = cls(**{key: kinds[key](value) for key, value in values.items()})
        except ValueError:
            return None
        return settings if settings.name == name else None

    @property
    def title(self) -> str:
        """What pictures of the run's model are headed with."""
        return f"{self.name}, {self.iter_max} steps, {self.dataset}"
