"""The user's command as a shell line: placeholders, and how the path of the model gets into it.

The path is never a part of the text that the shell reads. `{model}` becomes a quoted variable of the environment, so a
folder for temporary files with any name stays one word of the command.
"""

from __future__ import annotations

import os

from ...errors import InputError

MODEL_VARIABLE = "NNI_PROXYLESS_MODEL"
LONGEST_COMMAND = 100_000  # Linux allows 128 KiB for one argument
_MODEL = "{model}"
_EXAMPLE = "'adb shell benchmark {model}'"


def check_command(command: object) -> str:
    """Check a command of the user.

    Raises:
        InputError: The command is not a text with `{model}`, is too long, or has `{model}` in quotes or after a
            character that gives it another meaning.
    """
    if not isinstance(command, str) or _MODEL not in command:
        raise InputError(
            f"backend command needs a command with {_MODEL} in it, which becomes the path of an ONNX file, as in "
            f"{_EXAMPLE}; got {_shown(command)}"
        )
    try:
        if "\x00" in command or len(os.fsencode(command)) > LONGEST_COMMAND:
            raise ValueError
    except ValueError:  # also of characters that no file or argument can have
        raise InputError(
            f"backend command: command must have at most {LONGEST_COMMAND} bytes of text without NUL, got "
            f"{_shown(command)} of {len(command)} characters"
        ) from None
    fault = _fault(command)
    if fault is not None:
        raise InputError(
            f"backend command: {_MODEL} {fault} in {_shown(command)}. Write it bare, as in {_EXAMPLE}: the path is "
            "always one word. Hand it to a quoted script as an argument: sh -c 'bench \"$1\"' sh {model}"
        )
    return command


def shell_line(command: str, threads: int, batch: int) -> str:
    """Return a command with its placeholders filled in. The path is in the environment, as `MODEL_VARIABLE`."""
    for key, value in (("model", f'"${MODEL_VARIABLE}"'), ("threads", str(threads)), ("batch", str(batch))):
        command = command.replace("{" + key + "}", value)
    return command


def _fault(command: str) -> str | None:
    """Say why the first unsuitable `{model}` of a command cannot become a quoted variable; `None` if all can."""
    # The innermost context comes last: '"' and "'" for quotes, "`" and "(" for commands, "{" for ${...}, "((" for
    # arithmetic.
    stack: list[str] = []
    here_document = False
    place = 0
    while place < len(command):
        inner = stack[-1] if stack else ""
        char = command[place]
        if command.startswith(_MODEL, place):
            if inner in ("'", '"', "{"):
                return "stands in quotes" if inner != "{" else "stands in ${...}"
            if inner == "`" and '"' in stack:
                return "stands in quotes"
            if place and command[place - 1] in "$\\":
                return f"stands directly after {command[place - 1]}"
            if here_document:
                return "stands in a here-document"
            place += len(_MODEL)
            continue
        if inner == "'":
            if char == "'":
                stack.pop()
        elif char == "\\":
            if not command.startswith(_MODEL, place + 1):
                place += 1  # the next character has no meaning of its own
        elif char == '"':
            stack.pop() if inner == '"' else stack.append('"')
        elif char == "#" and inner != '"' and (place == 0 or command[place - 1] in " \t\n;&|("):
            end = command.find("\n", place)  # a comment
            place = len(command) if end < 0 else end
            continue
        elif char == "'" and inner != '"':
            stack.append("'")
        elif char == "`":
            stack.pop() if inner == "`" else stack.append("`")
        elif command.startswith(("$((", "(("), place) and (char == "$" or inner != '"'):
            stack.append("((")
            place += 2 if char == "$" else 1
        elif command.startswith("))", place) and inner == "((":
            stack.pop()
            place += 1
        elif command.startswith("$(", place):
            stack.append("(")
            place += 1
        elif command.startswith("${", place) and not command.startswith(_MODEL, place + 1):
            stack.append("{")
            place += 1
        elif char == "(" and inner != '"':
            stack.append("(")
        elif (char, inner) in ((")", "("), ("}", "{")):
            stack.pop()
        elif command.startswith("<<", place) and inner not in ('"', "(("):
            here_document = True
        place += 1
    return None


def _shown(value: object) -> str:
    text = repr(value[:1000] if isinstance(value, str) else value)
    return text if len(text) <= 160 else f"{text[:159]}…"
