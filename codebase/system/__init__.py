"""The operating system: errors, files, signals, output streams, progress and random seeds."""
