"""What the profiler predicts beside what others measured: `python -m profiler.validate`.

`cases.py` reads the published runs that are shipped as data in `cases/`, `rows.py` a user's own
measured records; `compare.py` holds a prediction against them and says whether it is near enough;
`page.py` draws what came of it. None of it imports torch.
"""
