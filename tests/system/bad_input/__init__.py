"""Tables of bad inputs; `tests/system/test_bad_input.py` gives each of them to the command line."""

from . import command_line

CASES = [*command_line.CASES]
