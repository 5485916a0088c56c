"""The profiler inside other tools: test suites, training loops, `Trainer`."""
