"""Seeded mutations of files: of their bytes, of their text, of the values in them, and of arrays and tensors."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import yaml

# Values that have broken readers: of other types, at the limits of types, and of forms that YAML treats specially.
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-308, 1e308, -1e308, 1e18, 2**31, 2**32, 2**53, 2**63 - 1, 2**63,
    -(2**63), 10**30, 10**400, float("nan"), float("inf"), -float("inf"), "", " ", "x", "0", "-1", "1e3", "nan", "null",
    "~", "~nouser/x", "../../x", "/dev/zero", "/", ".", "a\nb", "a\tb", "é", "\u202e", "\x1b[31m", "'", '"', "{}", "[",
    "$x^{$", "%s", "x" * 3000, "2026-01-01", "2026-13-45", "skip", "k3_e6", [], {}, [[]], [None], [{}], {"": 1},
    {"a": {"b": []}}, [1, 2, 3], [0, 0, 0], [-1, 8, 8], [1e308] * 3, list(range(300)), {"schema": 1}, [[[[[[1]]]]]],
)  # fmt: skip
ODD_TEXTS = (
    "\0", "\ufeff", "\ud7ff", "\u2028", "\x85", "\t", "\n", "\r", "\r\n", "[", "{", "}", "]", ":", "- ", "? ", "&a ",
    "*a", "<<: ", "!!int ", "!!binary ", "!!python/object:os.x ", "|", ">", "%", "@", "`", "'", '"', "\\", "#", "---\n",
    "...\n", ",", ",,", ";", "1e999", "-", ".", "9" * 30, "9" * 400, "9" * 5000, "0x" + "f" * 400, "NaN", "Infinity",
    "null", "true", "2026-01-01", "1:30", "=", "é", "\U0001f600", "x" * 5000, "[" * 200, "{a: " * 100,
)  # fmt: skip


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """Change some bytes, cut, repeat or insert a piece."""
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        place, length = draw.randrange(len(changed) + 1), draw.choice((1, 2, 8, 64, 512))
        kind = draw.randrange(6)
        if kind == 0 and changed:
            changed[place % len(changed)] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length] * draw.choice((1, 2, 20))
        elif kind == 3:
            changed[place:place] = draw.randbytes(length)
        elif kind == 4:
            changed[place : place + length] = draw.randbytes(length)
        else:
            del changed[place:]
    return bytes(changed)


def mutated_text(text: str, draw: random.Random) -> str:
    """Insert an odd text, or put one in place of a word or number, or cut, repeat or exchange lines."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        words = [found.span() for found in re.finditer(r"[\w.+-]+", text)]
        lines = text.split("\n")
        kind = draw.randrange(6)
        odd = draw.choice(ODD_TEXTS)
        if kind == 0 and words:
            begin, end = draw.choice(words)
            text = text[:begin] + odd + text[end:]
        elif kind == 1:
            place = draw.randrange(len(text) + 1)
            text = text[:place] + odd + text[place:]
        elif kind == 2:
            lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
            text = "\n".join(lines)
        elif kind == 3:
            del lines[draw.randrange(len(lines))]
            text = "\n".join(lines)
        elif kind == 4:
            draw.shuffle(lines)
            text = "\n".join(lines)
        else:
            text = text[: draw.randrange(len(text) + 1)]
    return text


def mutated_value(content: Any, draw: random.Random) -> Any:
    """Put odd values in place of some values, remove, add, rename or exchange some."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        places = list(_places(content))
        if not places:
            return draw.choice(ODD_VALUES)
        container, key = draw.choice(places)
        kind = draw.randrange(8)
        if kind <= 3:
            container[key] = copy.deepcopy(draw.choice(ODD_VALUES))
        elif kind == 4:
            del container[key]
        elif kind == 5:
            other, name = draw.choice(places)
            container[key] = copy.deepcopy(other[name])
        elif kind == 6 and isinstance(container, dict):
            container[draw.choice(("x", "", str(key) + "x", 1, None, True, "schema", "name"))] = container.pop(key)
        elif isinstance(container, dict):
            container[draw.choice(("x", "extra", "schema", "<<"))] = copy.deepcopy(draw.choice(ODD_VALUES))
        else:
            container.insert(key, copy.deepcopy(draw.choice(ODD_VALUES)))
    return content


def _places(content: Any) -> Any:
    waiting = [content]
    while waiting:
        container = waiting.pop()
        if isinstance(container, (dict, list)):
            for key in container if isinstance(container, dict) else range(len(container)):
                yield container, key
                waiting.append(container[key])


def mutated_document(content: bytes, draw: random.Random, *, as_json: bool) -> bytes:
    """Mutate a JSON or YAML document: one of its values, its text or its bytes."""
    kind = draw.randrange(10)
    if kind < 6:
        changed = mutated_value(json.loads(content) if as_json else yaml.safe_load(content), draw)
        written = json.dumps(changed, skipkeys=True) if as_json else yaml.dump(changed, sort_keys=False)
        return written.encode("utf-8", "surrogatepass")
    if kind < 9:
        return mutated_text(content.decode(), draw).encode("utf-8", "surrogatepass")
    return mutated_bytes(content, draw)


def mutated_table(content: bytes, draw: random.Random) -> bytes:
    """Mutate a CSV file: one of its cells, its text or its bytes."""
    kind = draw.randrange(10)
    if kind < 5:
        rows = [line.split(",") for line in content.decode().splitlines()]
        for _ in range(draw.choice((1, 2, 5))):
            row = draw.choice(rows)
            change = draw.randrange(4)
            if change <= 1:
                row[draw.randrange(len(row))] = str(draw.choice(ODD_VALUES))
            elif change == 2:
                row.append("x")
            elif len(row) > 1:
                del row[draw.randrange(len(row))]
        return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
    if kind < 9:
        return mutated_text(content.decode(), draw).encode("utf-8", "surrogatepass")
    return mutated_bytes(content, draw)


def mutated_arrays(content: bytes, draw: random.Random) -> bytes:
    """Mutate an `.npz` file: one of its arrays, the header of one, or its bytes."""
    kind = draw.randrange(10)
    if kind < 3:
        return mutated_bytes(content, draw)
    arrays = dict(np.load(io.BytesIO(content)))
    if kind < 7:
        name = draw.choice(sorted(arrays))
        array = arrays[name]
        made: Callable[[], Any] = draw.choice(
            (
                lambda: array.astype(draw.choice(("f4", "f8", "c8", "i1", "u8", "?", "U3", "M8[s]", "V2"))),
                lambda: array[: draw.randrange(3)],
                lambda: array[..., None],
                lambda: array.reshape(-1),
                lambda: array.swapaxes(0, -1),
                lambda: np.array(draw.choice(ODD_VALUES[:24]), dtype=draw.choice((object, None))),
                lambda: np.array([{}, []], dtype=object),
                lambda: -array.astype("i8") - 2**62,
                lambda: array + np.array(200, array.dtype),
                lambda: np.zeros((10, 0, 3), "u1"),
                lambda: np.asfortranarray(array),
            )
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arrays[name] = made()
    elif kind == 7:
        arrays.pop(draw.choice(sorted(arrays)))
    else:
        arrays["extra"] = np.array([{"a": 1}], dtype=object)
    file = io.BytesIO()
    draw.choice((np.savez, np.savez_compressed))(file, **arrays)
    if kind < 9:
        return file.getvalue()
    return _changed_part(file.getvalue(), draw)


def _changed_part(content: bytes, draw: random.Random) -> bytes:
    """Mutate one part of a ZIP archive, and write the archive with right checksums."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as before, zipfile.ZipFile(file, "w") as after:
        chosen = draw.choice(before.namelist())
        for name in before.namelist():
            part = before.read(name)
            if name == chosen:
                head = draw.choice((64, len(part)))
                part = mutated_bytes(part[:head], draw) + part[head:]
            after.writestr(name, part)
    return file.getvalue()


ODD_TENSORS: tuple[Callable[[torch.Tensor], Any], ...] = (
    lambda tensor: tensor.reshape(-1)[:-1],
    lambda tensor: tensor.reshape(-1)[:0],
    lambda tensor: torch.stack([tensor, tensor]),
    lambda tensor: tensor.unsqueeze(0),
    lambda tensor: tensor * float("nan"),
    lambda tensor: tensor + float("inf"),
    lambda tensor: tensor - float("inf"),
    lambda tensor: tensor.to(torch.complex64),
    lambda tensor: tensor.to(torch.int64),
    lambda tensor: tensor > 0,
    lambda tensor: tensor.to(torch.float16),
    lambda tensor: tensor.to_sparse(),
    lambda tensor: tensor.to("meta"),
    lambda tensor: tensor * 1e38,
    lambda tensor: tensor.tolist(),
    lambda tensor: float(tensor.flatten()[0]) if tensor.numel() else 0.0,
    lambda tensor: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
    lambda tensor: tensor.as_strided((2, 2), (0, 0)),
    lambda _: None,
    lambda _: "x",
)


def mutated_tensors(content: bytes, draw: random.Random) -> bytes:
    """Mutate a file of `torch.save`: one of its tensors or values, a part of its archive, or its bytes."""
    kind = draw.randrange(10)
    if kind < 2:
        return mutated_bytes(content, draw)
    if kind < 4:
        return _changed_part(content, draw)
    state = torch.load(io.BytesIO(content), weights_only=True)
    if kind < 7:
        places = [(of, key) for of, key in _places(state) if isinstance(of[key], torch.Tensor)]
        container, key = draw.choice(places)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            container[key] = draw.choice(ODD_TENSORS)(container[key])
    else:
        state = mutated_value(state, draw)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(state, file)
    return file.getvalue()
