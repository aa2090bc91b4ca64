"""What a chunk costs: samplers side by side on recorded observations. Needs torch, numpy and safetensors only."""

from specpolicy.benchmark.measure import Draw
from specpolicy.benchmark.report import write_report
from specpolicy.benchmark.run import Settings, benchmark
from specpolicy.benchmark.stand_in import StandIn
from specpolicy.benchmark.table import notes, plain_table, result_table, rows_table

__all__ = [
    "Draw",
    "Settings",
    "StandIn",
    "benchmark",
    "notes",
    "plain_table",
    "result_table",
    "rows_table",
    "write_report",
]
