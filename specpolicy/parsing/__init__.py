"""Parsing of everything from outside: files and configurations become checked values, unknown keys are refused by
name."""

from specpolicy.parsing.json_file import check_regular, parse_json, read_json
from specpolicy.parsing.schema import check_choice, check_ranges, parse, plain
from specpolicy.parsing.words import closest, one_line, shown

__all__ = [
    "check_choice",
    "check_ranges",
    "check_regular",
    "closest",
    "one_line",
    "parse",
    "parse_json",
    "plain",
    "read_json",
    "shown",
]
