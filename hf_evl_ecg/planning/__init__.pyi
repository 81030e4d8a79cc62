from .dry_run import DryRun
from .networks import ParameterCount, count_parameters, load_shape

__all__ = ["DryRun", "ParameterCount", "count_parameters", "load_shape"]
