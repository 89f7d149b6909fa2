"""The model and its networks."""

from codebase import utils  # noqa: F401  # first, since a student's utils.py may import the VAE
