from .cinc import load_cinc
from .code15 import load_code15
from .folder import load_folder
from .ludb import load_ludb
from .mimic import load_mimic_iv_ecg
from .ptbxl import load_ptbxl
from .report import LoadReport
from .simulated import load_simulated
from .sph import load_sph
from .zscored import load_ptbxl_filtered

__all__ = [
    "LoadReport",
    "load_cinc",
    "load_code15",
    "load_folder",
    "load_ludb",
    "load_mimic_iv_ecg",
    "load_ptbxl",
    "load_ptbxl_filtered",
    "load_simulated",
    "load_sph",
]
