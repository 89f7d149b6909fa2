"""Runs: a run's folder, what keeps it while it trains, several runs, processes of torchrun."""
