"""A variational autoencoder on MNIST, as a course assignment asks for it."""

from codebase.environment import prepare_environment

prepare_environment()
