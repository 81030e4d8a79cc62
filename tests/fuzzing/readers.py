"""All readers by name; each package's are imported only where its own libraries are installed."""

from functools import cache
from importlib.util import find_spec

from fuzzing.harness import Reader


def available(package: str) -> bool:
    """Whether a package is installed."""
    return find_spec(package) is not None


@cache
def readers() -> dict[str, Reader]:
    """Name → reader, in the order of the tables."""
    found: list[Reader] = []
    if available("sentence_transformers"):
        from fuzzing import mic_readers

        found += mic_readers.READERS
    if available("wfdb"):
        from fuzzing import clinical_readers, ecg_data_readers, ecg_readers

        found += [*clinical_readers.READERS, *ecg_data_readers.READERS, *ecg_readers.READERS]
    by_name = {reader.name: reader for reader in found}
    assert len(by_name) == len(found), "two readers of one name"
    return by_name
