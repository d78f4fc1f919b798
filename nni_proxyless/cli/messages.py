"""The form of error messages on the command line: one line of fewer than 500 characters that a terminal can show."""

from __future__ import annotations

LONGEST_LINE = 490
MOST_OF_A_FAILURE = 2000  # a run that failed may need more words than a wrong value
_MOST_OF_A_WORD = 200
_BEGINNING = 0.7  # part of the beginning in what is kept of a long message, whose end says what to do


def one_line(start: str, message: object, end: str = "", most: int = LONGEST_LINE) -> str:
    """Return an error message as one line.

    Line breaks become spaces, and characters that a terminal does not print become `?`. Of a longer message, the
    middle is left out.

    Args:
        start: Beginning of the line, such as the name of the command.
        message: The message.
        end: End of the line, such as where to find help.
        most: Largest number of characters of the line.
    """
    words = "".join(c if c.isprintable() or c.isspace() else "?" for c in str(message)).split()
    text = " ".join(word if len(word) <= _MOST_OF_A_WORD else f"{word[:_MOST_OF_A_WORD]}…" for word in words)
    room = most - len(start) - len(end) - len(": ")
    if len(text) > room:
        beginning = round(_BEGINNING * room)
        text = f"{text[:beginning].rstrip()} … {text[-(room - beginning - 3) :].lstrip()}"
    return f"{start}: {text}{end}"
