"""What a CUDA build does where a CPU build does otherwise, as tables that cite their source.

No GPU has run any of this: it is read from PyTorch's and bitsandbytes' sources and held against
published measurements.
"""
