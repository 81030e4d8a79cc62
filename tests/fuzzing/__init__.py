"""Damaged files for every reader of both packages: seeded changes, what each reader may answer, and the numbers of a run.

``python -m fuzzing`` with ``tests`` on the path (``make fuzz``) is the whole of it; `test_readers` is a small part, in the suite.
"""
