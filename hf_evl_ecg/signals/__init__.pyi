from .ecg import ECG, STANDARD_LEADS, canonical_lead, canonical_leads, crop, derive_limb_leads, resample
from .simulation import SimulationConfig, simulate

__all__ = [
    "ECG",
    "STANDARD_LEADS",
    "SimulationConfig",
    "canonical_lead",
    "canonical_leads",
    "crop",
    "derive_limb_leads",
    "resample",
    "simulate",
]
