"""The model and its networks."""
