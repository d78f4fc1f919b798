"""The form of error messages on the command line: one line of fewer than 500 characters that a terminal can show."""

from __future__ import annotations

MOST_CHARACTERS = 490
_MOST_OF_A_WORD = 200
_BEGINNING = 330  # of a message that is too long; the rest of what is kept is its end, which says what to do


def one_line(start: str, message: object, end: str = "") -> str:
    """Return an error message as one line.

    Line breaks become spaces, and characters that a terminal does not print become `?`. Of a longer message, the
    middle is left out.

    Args:
        start: Beginning of the line, such as the name of the command.
        message: The message.
        end: End of the line, such as where to find help.
    """
    words = "".join(c if c.isprintable() or c.isspace() else "?" for c in str(message)).split()
    text = " ".join(word if len(word) <= _MOST_OF_A_WORD else f"{word[:_MOST_OF_A_WORD]}…" for word in words)
    room = MOST_CHARACTERS - len(start) - len(end) - len(": ")
    if len(text) > room:
        text = f"{text[:_BEGINNING].rstrip()} … {text[-(room - _BEGINNING - 3) :].lstrip()}"
    return f"{start}: {text}{end}"
