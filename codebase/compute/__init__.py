"""The hardware: processor and threads, CUDA graphs, and the processes of torchrun."""
