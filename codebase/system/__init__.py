"""What the program asks of the machine: files, signals, streams, randomness, the processor."""
