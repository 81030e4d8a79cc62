"""ECG datasets as tables of rows, questions made from them, and the way back from a row to the signal.

Every loader returns a `datasets.Dataset` with one row per record (path, labels, split, measurements; no samples) and a
`LoadReport` that names what was left out and what a reader of results must know. `load_ecg` reads a row's signal in the
loader worker, so no folder of pictures is needed.

Example:
    >>> rows, report = load_ludb("ludb")                              # doctest: +SKIP
    >>> print(report)                                                 # doctest: +SKIP
    >>> questions = question_dataset(rows, per_record=8, seed=1)      # doctest: +SKIP
    >>> train = questions.filter(lambda split: split == "train", input_columns="split")  # doctest: +SKIP
    >>> image = render(load_ecg(train[0]), RenderConfig())            # doctest: +SKIP
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
