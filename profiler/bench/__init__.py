"""How a subject is run; each bench turns a subject into a `profiler.trace.Trace`."""
