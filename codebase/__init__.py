"""A variational autoencoder on MNIST, as a course assignment asks for it."""
