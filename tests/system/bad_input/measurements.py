"""CSV and JSON files of networks, of measured latencies and of counts that are wrong."""

from __future__ import annotations

from .case import Case
from .folder import ARCHITECTURES, COUNTS, MEASUREMENTS, as_json

FIT = "latency fit --measurements bad.csv --out made.yml"
SUGGEST = "latency suggest --space space.yml --networks 2 --out made.csv"
PREDICT = "latency predict table.yml --space space.yml --architectures"
_HEADER, *_ROWS = MEASUREMENTS.splitlines()
_FIRST = _ROWS[0]


def _with_row(row: str) -> str:
    return "\n".join([_HEADER, row, *_ROWS[1:]]) + "\n"


_MEASUREMENTS = [
    Case(FIT, received, says, {"bad.csv": content})
    for content, received, says in (
        ("", "bad.csv", "needs a header and a row for each network"),
        ("\n\n\n", "bad.csv", "needs a header and a row for each network"),
        (f"{_HEADER}\n", "bad.csv", "has a header but no rows"),
        ("latency_ms\n1.0\n2.0\n", "bad.csv", "no column for a layer"),
        (ARCHITECTURES, "stage1_layer1", "no column 'latency_ms'"),
        (MEASUREMENTS.replace("latency_ms", "latency"), "latency", "no column 'latency_ms'"),
        (MEASUREMENTS.replace("latency_ms", "Latency_ms"), "Latency_ms", "no column 'latency_ms'"),
        (MEASUREMENTS.replace("latency_ms", "latency_us"), "latency_us", "no column 'latency_ms'"),
        (MEASUREMENTS.replace("stage1_layer2", "stage1_layer1"), "'stage1_layer1'", "more than one column"),
        (MEASUREMENTS.replace("stage1_layer2", ""), "column 2", "no name in the header"),
        (MEASUREMENTS.replace(",", ";"), "stage1_layer1;stage1_layer2", "no column 'latency_ms'"),
        (MEASUREMENTS.replace(",", "\t"), "stage1_layer1", "no column 'latency_ms'"),
        (_with_row("k3_e1,skip,k3_e1,0"), "'0'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,-1.5"), "'-1.5'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,nan"), "'nan'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,inf"), "'inf'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,1.5ms"), "'1.5ms'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,1.5 ms"), "'1.5 ms'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,fast"), "'fast'", "positive number of milliseconds"),
        (_with_row('k3_e1,skip,k3_e1,"1,5"'), "'1,5'", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,1e308"), "1e308", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,1e999"), "1e999", "positive number of milliseconds"),
        (_with_row("k3_e1,skip,k3_e1,"), "'latency_ms'", "is empty in line 2"),
        (_with_row("k3_e1,,k3_e1,1.5"), "'stage1_layer2'", "is empty in line 2"),
        (_with_row("k3_e1,skip,1.5"), "'latency_ms'", "is empty in line 2"),
        (_with_row("k3_e1,skip,k3_e1,k3_e1,1.5"), "line 2", "cannot be parsed"),
        (_with_row('k3_e1,"skip,k3_e1,1.5'), "bad.csv", "cannot be parsed"),
        (_with_row("k3_e1,sk\0ip,k3_e1,1.5"), "bad.csv", "NUL"),
        (
            _HEADER.replace("stage1", "id,stage1", 1) + "\n" + "\n".join(f"n{n},{row}" for n, row in enumerate(_ROWS)),
            "'id'",
            "if it is a name and not a layer, remove it",
        ),
        (MEASUREMENTS.encode("utf-16"), "bad.csv", "text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "bad.csv", "text"),
        (f"{_HEADER}\n{_FIRST}\n", "1 measurements", "too few for a table"),
        (f"{_HEADER}\n{_FIRST}\n{_ROWS[1]}\n", "2 measurements", "too few for a table"),
    )
]

_OF_A_SPACE = [
    Case(f"{FIT} --space space.yml", received, says, {"bad.csv": content})
    for content, received, says in (
        (MEASUREMENTS.replace("k5_e1,0", "k9_e1,0").replace("k3_e1,1", "k7_e1,1"), "'k7_e1'", "allowed:"),
        (MEASUREMENTS.replace("stage2_layer1", "stage2_layer2"), "stage2_layer2", "the columns do not fit"),
        (MEASUREMENTS.replace("stage2_layer1", "device"), "device", "the columns do not fit"),
        ("\n".join(row.split(",", 1)[1] for row in MEASUREMENTS.splitlines()), "stage1_layer1", "missing"),
    )
]

_FILES = [
    Case("latency fit --measurements nowhere.csv --out made.yml", "nowhere.csv", "No such file"),
    Case("latency fit --measurements empty --out made.yml", "empty", "directory"),
    Case("latency fit --measurements table.yml --out made.yml", "table.yml", "latency_ms"),
    Case("latency fit --measurements images.npz --out made.yml", "images.npz", "text"),
    Case("latency fit --measurements counts.csv --out made.yml", "layer", "no column 'latency_ms'"),
    Case("latency fit --measurements measured.csv --counts nowhere.csv --out made.yml", "nowhere.csv", "No such file"),
    Case("latency fit --measurements measured.csv --counts measured.csv --out made.yml", "stage1_layer1", "'layer'"),
    Case("latency fit --measurements measured.csv --counts empty --out made.yml", "empty", "directory"),
    Case(f"{SUGGEST} --measurements nowhere.csv", "nowhere.csv", "No such file"),
    Case(f"{SUGGEST} --measurements networks.csv", "stage1_layer1", "no column 'latency_ms'"),
    Case(f"{SUGGEST} --among nowhere.csv", "nowhere.csv", "No such file"),
    Case(f"{SUGGEST} --among counts.csv", "counts.csv", "lacks the layer(s)"),
    Case(f"{SUGGEST} --among empty", "empty", "directory"),
    Case(f"{SUGGEST} --counts counts.csv --basis other_table.yml", "lacks", "Measure the table again"),
    Case(f"{SUGGEST} --among networks.csv".replace("networks 2", "networks 500"), "500", "networks"),
    Case(SUGGEST.replace("networks 2", "networks 81"), "81", "80"),
    Case(f"{PREDICT} nowhere.csv", "nowhere.csv", "No such file"),
    Case(f"{PREDICT} empty", "empty", "directory"),
    Case(f"{PREDICT} table.yml", "stage1_layer1", "lack the layer(s)"),
    Case(f"{PREDICT} images.npz", "images.npz", "text"),
    Case("latency predict fitted.yml --architectures counts.csv", "stage1_layer1", "lack"),
]

_COUNTS = [
    Case(
        "latency fit --measurements measured.csv --counts bad.csv --out made.yml", received, says, {"bad.csv": content}
    )
    for content, received, says in (
        ("", "bad.csv", "needs a header"),
        ("layer,candidate,macs\n", "bad.csv", "has a header but no rows"),
        ("layer,candidate\nstage1_layer1,k3_e1\n", "bad.csv", "no column of counts"),
        ("layer,candidate,kernel\nstage1_layer1,k3_e1,3\n", "kernel", "no column of counts"),
        (COUNTS.replace("layer,", "Layer,", 1), "Layer", "no column 'layer'"),
        (COUNTS.replace("candidate,", "operator,", 1), "operator", "no column 'candidate'"),
        (COUNTS.replace(",100\n", ",-100\n", 1), "'-100'", "macs must be a number from 0"),
        (COUNTS.replace(",100\n", ",1M\n", 1), "'1M'", "macs must be a number from 0"),
        (COUNTS.replace(",100\n", ",nan\n", 1), "'nan'", "macs must be a number from 0"),
        (COUNTS.replace(",100\n", ",1e999\n", 1), "1e999", "macs must be a number from 0"),
        (COUNTS.replace(",100\n", ",1e300\n", 1), "1e300", "macs must be a number from 0"),
        (COUNTS.replace(",100\n", ",\n", 1), "'macs'", "is empty in line"),
        (COUNTS + "stage1_layer1,k3_e1,5\n", "k3_e1 in stage1_layer1", "second row"),
        ("\n".join(COUNTS.splitlines()[:3]) + "\n", "['stage1_layer2', 'stage2_layer1']", "of another space"),
        (COUNTS.replace("stage", "block"), "['block1_layer1', 'block1_layer2', 'block2_layer1']", "of another space"),
        (
            COUNTS.replace("stage1_layer1,k5_e1,100\n", ""),
            "k5_e1 of layer stage1_layer1",
            "without the measured candidate(s)",
        ),
    )
]

_NETWORKS = [
    Case(f"{PREDICT} {name}", received, says, {name: content})
    for name, content, received, says in (
        ("bad.csv", "", "bad.csv", "needs a header"),
        ("bad.csv", ARCHITECTURES.splitlines()[0], "bad.csv", "has a header but no rows"),
        ("bad.csv", ARCHITECTURES.replace("skip", "none"), "'none'", "allowed:"),
        ("bad.csv", ARCHITECTURES.replace("stage2_layer1", "stage3_layer1"), "stage2_layer1", "lack the layer(s)"),
        ("bad.csv", ARCHITECTURES.replace("stage1_layer2", "stage1_layer1"), "'stage1_layer1'", "more than one column"),
        ("bad.csv", ARCHITECTURES.replace(",skip,", ",,"), "'stage1_layer2'", "is empty in line 2"),
        ("bad.json", "", "bad.json", "cannot be parsed"),
        ("bad.json", "{", "bad.json", "cannot be parsed"),
        ("bad.json", "{'stage1_layer1': 'k3_e1'}", "bad.json", "cannot be parsed"),
        ("bad.json", "[]", "bad.json", "mapping of labels to candidates"),
        ("bad.json", "5", "bad.json", "mapping of labels to candidates"),
        ("bad.json", "null", "bad.json", "mapping of labels to candidates"),
        ("bad.json", "[{}]", "bad.json", "mapping of labels to candidates"),
        ("bad.json", '["k3_e1", "skip"]', "bad.json", "mapping of labels to candidates"),
        ("bad.json", as_json({"schema": "nni-proxyless/architecture@1"}), "bad.json", "layers"),
        ("bad.json", as_json({"schema": "x", "choices": [1]}), "bad.json", "layers"),
        ("bad.json", as_json({"stage1_layer1": "k3_e1"}), "stage1_layer2", "lack the layer(s)"),
        (
            "bad.json",
            as_json([{"stage1_layer1": "k3_e1"}, {"stage1_layer2": "k3_e1"}]),
            "bad.json",
            "all must have the same layers",
        ),
        ("bad.json", as_json({"stage1_layer1": ["k3_e1"]}), "bad.json", "map each label to a candidate"),
        ("bad.json", as_json([{"a": "x"}, {"a": {"x": 1.0}}]), "bad.json", "map each label to a candidate"),
        ("bad.json", as_json({"a": {"x": 0.5}}), "0.5", "add up to 1"),
        ("bad.json", as_json({"a": {"x": -0.5, "y": 1.5}}), "-0.5", "add up to 1"),
        ("bad.json", as_json({"a": {"x": "1.0"}}), "'1.0'", "add up to 1"),
        ("bad.json", '{"a": {"x": NaN}}', "nan", "must be a finite number"),
        ("bad.json", '{"a": {"x": Infinity}}', "inf", "must be a finite number"),
        ("bad.json", '{"a": {"x": 1' + "0" * 400 + "}}", "1000", "a number of at most 63 bits"),
        ("bad.json", as_json({"a": {}}), "{}", "add up to 1"),
        ("bad.json", as_json({"stage1_layer1": {"x": 1.0}}), "'x'", "allowed:"),
        ("bad.json", as_json({"a": {"x": 1.0}}), "stage1_layer1", "lacks layer"),
        ("bad.json", "[" * 5000, "bad.json", "nested"),
        ("bad.json", b"\xff\xfe[\x00", "bad.json", "text"),
    )
]

CASES = [*_MEASUREMENTS, *_OF_A_SPACE, *_FILES, *_COUNTS, *_NETWORKS]
