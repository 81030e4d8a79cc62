"""Where records and methods come from, as a model card must say: licence, citation, link."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["METHOD_BIBTEX", "SOURCES", "DataSource", "find_source"]


@dataclass(frozen=True)
class DataSource:
    """A source of ECG records.

    Attributes:
        title: Its name for readers.
        licence: Licence, empty if none is known.
        cite: Whom to cite, empty if nobody.
        url: Where it is published, empty if nowhere.
    """

    title: str
    licence: str = ""
    cite: str = ""
    url: str = ""


_PTBXL = "Wagner et al., PTB-XL, a large publicly available electrocardiography dataset, Scientific Data 7:154, 2020"
SOURCES: Mapping[str, DataSource] = {
    "ptb-xl": DataSource("PTB-XL", "CC BY 4.0", _PTBXL, "https://doi.org/10.13026/kfzx-aw45"),
    "ptb-xl-filtered": DataSource(
        "PTB-XL, changed: filtered and z-scored per lead",
        "CC BY 4.0",
        _PTBXL,
        "https://doi.org/10.13026/kfzx-aw45",
    ),
    "ludb": DataSource(
        "LUDB (Lobachevsky University)",
        "ODC-By 1.0",
        "Kalyakulina et al., LUDB: A New Open-Access Validation Tool for Electrocardiogram Delineation Algorithms, IEEE Access "
        "8:186181-186190, 2020",
        "https://doi.org/10.13026/eegm-h675",
    ),
    "cinc": DataSource(
        "PhysioNet/CinC Challenge 2020/2021",
        "CC BY 4.0",
        "Perez Alday et al., Classification of 12-lead ECGs: the PhysioNet/Computing in Cardiology Challenge 2020, "
        "Physiological Measurement 41:124003, 2020; Reyna et al., Will Two Do? Varying Dimensions in Electrocardiography, "
        "Computing in Cardiology 2021",
        "https://doi.org/10.13026/34va-7q14",
    ),
    "simulated": DataSource("simulated ECGs", "made by hf_evl_ecg"),
}
"""Sources that this package reads, by the name that results and questions bear."""

METHOD_BIBTEX = """@inproceedings{evlecg2026,
  title = {EVL-ECG: Efficient ECG Interpretation With Multi-Aspect Heterogeneous Knowledge Distillation},
  booktitle = {SD4H workshop at ICML},
  year = {2026},
  eprint = {2605.29977},
  archivePrefix = {arXiv}
}"""


def find_source(name: str, extra: Mapping[str, DataSource] | None = None) -> DataSource:
    """Source of a name such as ``cinc/georgia``; one that is unknown bears its name and nothing else.

    Example:
        >>> find_source("cinc/georgia").licence
        'CC BY 4.0'
    """
    known = {**SOURCES, **(extra or {})}
    return known.get(name) or known.get(name.split("/")[0]) or DataSource(name)
