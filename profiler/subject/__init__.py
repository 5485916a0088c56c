"""What is profiled: a model with a method, an optimizer and a workload."""
