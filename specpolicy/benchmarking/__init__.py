"""Costs of a chunk: samplers side by side on recorded observations. Needs torch, numpy and safetensors only."""

from specpolicy.benchmarking.measure import Draw
from specpolicy.benchmarking.report import write_report
from specpolicy.benchmarking.run import Settings, benchmark
from specpolicy.benchmarking.stand_in import StandIn
from specpolicy.benchmarking.table import brief_table, notes, plain_table, result_table, rows_table

__all__ = [
    "Draw",
    "Settings",
    "StandIn",
    "benchmark",
    "brief_table",
    "notes",
    "plain_table",
    "result_table",
    "rows_table",
    "write_report",
]
