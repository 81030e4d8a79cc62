"""ECG datasets as tables of rows, questions made from them, and the way back from a row to the signal.

Every loader returns a `datasets.Dataset` with one row per record (path, labels, split, measurements; no samples) and a
`LoadReport` that names what was left out and what a reader of results must know. `load_ecg` reads a row's signal in the
loader worker, so no folder of pictures is needed.

Example:
    >>> from hf_evl_ecg.data import load_ecg, question_dataset
    >>> from hf_evl_ecg.sources import load_simulated
    >>> rows, report = load_simulated(1, classes=["AF"])
    >>> print(report)
    simulated: 1 records, 0 skipped
      simulated signals, not patients
    >>> questions = question_dataset(rows, per_record=8, seed=1)
    >>> load_ecg(questions[0]).signal_mv.shape
    (5000, 12)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
