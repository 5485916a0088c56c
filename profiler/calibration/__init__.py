"""Measures what a machine reaches: products, kernels, attention, memory and the host's own work.

`cpu.py` and `cuda.py` put the parts together; a part is one file. Only `profiler.calibrate` imports
this package: what was measured is read from its file (`profiler.hardware.device_profile`).
"""
