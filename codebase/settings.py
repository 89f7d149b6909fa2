"""What a run is: the settings that decide its result, and the name that is made of them."""

from typing import NamedTuple

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
        """The name of the run and of its folder; what is the assignment's default is left out."""
        assignment = Settings()
        parts = ["model=vae"]
        for key, value in self.deciding().items():
            if key == "z":
                parts.append(f"z={value:02d}")
            elif key == "run":
                parts.append(f"run={value:04d}")
            elif value != getattr(assignment, key):
                parts.append(f"{key}={value}")
        return "_".join(parts)

    @property
    def title(self) -> str:
        """What pictures of the run's model are headed with."""
        return f"{self.name}, {self.iter_max} steps, {self.dataset}"
