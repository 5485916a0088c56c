"""Triton kernels of adapter training: what they compute, what they take of a GPU.

`python -m experiments.kernels` compiles them for GPUs that need not be there and draws the page.
"""
