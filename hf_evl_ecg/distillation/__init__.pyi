from .cache import CachedTeacher
from .cache_files import CacheLayout, CacheMismatchError, DamagedShardError
from .cache_writer import TeacherCacheWriter
from .criterion import load_criterion, save_criterion
from .teacher import OnlineTeacher, SameModelError
from .trainer import EVLECGTrainer

__all__ = [
    "CacheLayout",
    "CacheMismatchError",
    "CachedTeacher",
    "DamagedShardError",
    "EVLECGTrainer",
    "OnlineTeacher",
    "SameModelError",
    "TeacherCacheWriter",
    "load_criterion",
    "save_criterion",
]
