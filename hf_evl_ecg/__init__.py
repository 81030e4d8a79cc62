"""EVL-ECG: small ECG vision-language models by distillation (arXiv 2605.29977)."""

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for; a missing dependency says what to install."""
    try:
        return _load(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{__name__}.{name} needs {error.name}: pip install 'hf-mic-evl-ecg[ecg]'", name=error.name
        ) from error
