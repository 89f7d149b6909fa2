"""The bounds of a model, as numbers."""

import math
from typing import NamedTuple


class Bounds(NamedTuple):
    """Negative ELBO and its two parts, in nats per image.

    `error` is the standard error of the negative ELBO over the images; nan where unknown.
    """

    nelbo: float
    kl: float
    rec: float
    error: float = math.nan


class Measured(NamedTuple):
    """The bounds of a model on three sets of images.

    They are the assignment's 100 test images, all test images, and the validation images if there
    are any.
    """

    subset: Bounds
    all: Bounds
    valid: Bounds | None = None
    seconds: float = math.nan  # training time; nan where unknown
