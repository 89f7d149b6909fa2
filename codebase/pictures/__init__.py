"""Pictures of what a model has learned, and a page to walk through its latent space."""
