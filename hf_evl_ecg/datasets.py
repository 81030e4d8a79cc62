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

from .cinc import load_cinc
from .folder import load_folder
from .instruct import load_instructions
from .ludb import load_ludb
from .ptbxl import load_ptbxl, load_ptbxl_filtered
from .questions import conversation_dataset, question_dataset
from .rows import LoadReport, load_ecg
from .simulated import load_simulated

__all__ = [
    "LoadReport",
    "conversation_dataset",
    "load_cinc",
    "load_ecg",
    "load_folder",
    "load_instructions",
    "load_ludb",
    "load_ptbxl",
    "load_ptbxl_filtered",
    "load_simulated",
    "question_dataset",
]
