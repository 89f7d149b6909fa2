"""Runs: the folder of a run, writing into it while training, several runs, and their tables."""
