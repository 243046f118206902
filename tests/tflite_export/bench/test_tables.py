import csv
import io
import json

from tflite_export.bench.result import Agreement, OperationTime, Result
from tflite_export.bench.tables import table

FAST = Result(
    "fast.tflite", "0" * 64, 12_000, "host", device="a processor", runtime="LiteRT", version="2.3.0",
    delegate="XNNPACK (2 of 3 operations)", threads=1, runs=50, init=0.5, first=2.5, median=1.234, p90=2.0, p99=3.0,
    min=1.0, spread=0.1, throughput=810.4, peak_memory=4_200_000, ratio=1.0, counts={"overhead (us)": 0.09},
    operations=(OperationTime("ADD", "a", "builtin", 0.25), OperationTime("CONV", "", "XNNPACK", 0.75)),
    agreement=Agreement("reference", 80, 0.975, 2.0, "steps"), accuracy=0.9125, warnings=("busy",),
)  # fmt: skip
BROKEN = Result("[red]broken", "1" * 64, 10, "tflm", status="failed", reason="no operation ATAN2", warnings=("busy",))


def test_numbers_reasons_and_warnings_are_in_the_text():
    text = str(table([FAST, BROKEN]))
    for words in ("1.23 ms", "10 %", "4.2 MB", "97.5 %", "2 steps", "91.25 %", "XNNPACK (2 of 3 operations)"):
        assert words in text
    assert "[red]broken on tflm: failed: no operation ATAN2" in text
    assert "fast.tflite, [red]broken: busy" in text
    assert "arena" not in text  # nobody has one
    assert "LiteRT 2.3.0 on a processor" in text


def test_operations_come_with_the_slowest_first():
    lines = [line for line in str(table(FAST)).splitlines() if "0.75 ms" in line or "0.25 ms" in line]
    assert lines[0].startswith("CONV") and "75.0 %" in lines[0] and lines[1].startswith("ADD")


def test_csv_has_a_line_a_result_and_every_field():
    rows = list(csv.DictReader(io.StringIO(table([FAST, BROKEN]).csv())))
    assert [row["name"] for row in rows] == ["fast.tflite", "[red]broken"]
    assert float(rows[0]["median"]) == 1.234 and rows[1]["median"] == ""
    assert json.loads(rows[0]["agreement"])["equal"] == 0.975
    assert json.loads(rows[0]["warnings"]) == ["busy"]
    assert set(rows[0]) == set(json.loads(FAST.to_json()))


def test_no_results_are_a_table_too():
    assert str(table([])) == "Results"
