from .cinc import load_cinc
from .folder import load_folder
from .ludb import load_ludb
from .ptbxl import load_ptbxl
from .report import LoadReport
from .simulated import load_simulated
from .zscored import load_ptbxl_filtered

__all__ = [
    "LoadReport",
    "load_cinc",
    "load_folder",
    "load_ludb",
    "load_ptbxl",
    "load_ptbxl_filtered",
    "load_simulated",
]
