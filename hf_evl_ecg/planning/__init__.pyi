from .batches import TextBudget, TokenBudget, measure_budget
from .cluster import Cluster
from .cost import CachePlan, EpochCost, cache_bytes, epoch_cost, plan_cache
from .dry_run import DryRun
from .memory import GpuMemory, Held, memory_per_gpu
from .networks import ParameterCount, count_parameters, load_shape
from .plan import Plan, Switch, make_plan
from .report import plan_json, plan_text
from .setup import Counted, PlannedConfig, Setup, count_setup
from .step import StepCount, ValueDependentError, count_step

__all__ = [
    "CachePlan",
    "Cluster",
    "Counted",
    "DryRun",
    "EpochCost",
    "GpuMemory",
    "Held",
    "ParameterCount",
    "Plan",
    "PlannedConfig",
    "Setup",
    "StepCount",
    "Switch",
    "TextBudget",
    "TokenBudget",
    "ValueDependentError",
    "cache_bytes",
    "count_parameters",
    "count_setup",
    "count_step",
    "epoch_cost",
    "load_shape",
    "make_plan",
    "measure_budget",
    "memory_per_gpu",
    "plan_cache",
    "plan_json",
    "plan_text",
]
