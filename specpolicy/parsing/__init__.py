"""The door for what comes from outside: files and configurations become checked values, unknown is refused by name."""

from specpolicy.parsing.json_file import check_regular, read_json
from specpolicy.parsing.schema import check_choice, check_ranges, parse
from specpolicy.parsing.words import closest, shown

__all__ = ["check_choice", "check_ranges", "check_regular", "closest", "parse", "read_json", "shown"]
