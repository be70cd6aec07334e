"""Error rates, conditions and tables, through the public API only."""

from .avsr_conditions import ConditionResult, evaluate_avsr
from .tables import format_table

__all__ = ["ConditionResult", "evaluate_avsr", "format_table"]
