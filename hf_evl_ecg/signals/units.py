"""Names of units of voltage, as headers, XML and people write them → millivolts."""

__all__ = ["mv_per_unit"]

_IN_MV = {  # in lower case; there are two characters for micro, U+00B5 and the Greek letter U+03BC
    "mv": 1.0,
    "uv": 1e-3,
    "µv": 1e-3,
    "μv": 1e-3,
    "nv": 1e-6,
    "v": 1e3,
    "millivolt": 1.0,
    "microvolt": 1e-3,
    "nanovolt": 1e-6,
    "volt": 1e3,
}


def mv_per_unit(name: str) -> float | None:
    """Millivolts in one unit of that name; None where it is no voltage.

    Example:
        >>> mv_per_unit("uV"), mv_per_unit("Millivolts"), mv_per_unit("mmHg")
        (0.001, 1.0, None)
    """
    return _IN_MV.get(name.strip().lower().rstrip("s"))
