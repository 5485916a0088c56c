"""From a trace to numbers: plain functions over plain data, no torch, no input or output."""
