from .header import ECGRecordError, ECGRecordWarning
from .plausibility import ImplausibleAmplitudeWarning
from .reader import check_record, read_header, read_record

__all__ = [
    "ECGRecordError",
    "ECGRecordWarning",
    "ImplausibleAmplitudeWarning",
    "check_record",
    "read_header",
    "read_record",
]
