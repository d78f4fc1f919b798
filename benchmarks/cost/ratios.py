"""Ratios of costs as rows of the CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def ratio_rows(part: str, ratios: Mapping[str, list[float]], unit: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "part": part,
            "what": what,
            "value": round(float(np.median(values)), 3),
            "lowest": round(min(values), 3),
            "highest": round(max(values), 3),
            "unit": unit,
            "networks": len(values),
            **more,
        }
        for what, values in ratios.items()
    ]
