"""The page of results: its figures are those of the results, it is inert, it fits a phone."""

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.tflite_export.bench.chromium import Page
from tflite_export import ExportError
from tflite_export.bench.page import report
from tflite_export.bench.page_view import view
from tflite_export.bench.result import Agreement, OperationTime, Result, lines

jinja2 = pytest.importorskip("jinja2")

TIMES = {"device": "Board 9", "runtime": "LiteRT Interpreter", "version": "2.3.0", "threads": 1, "runs": 50,
         "delegate": "XNNPACK (12 of 12 operations)"}  # fmt: skip
HOSTILE = "<script>alert(1)</script>\"' onload=alert(2) {{ 7 * 7 }} </style></title><img src=x onerror=alert(3)>&amp;"


def timed(name: str, size: int, median: float, **others) -> Result:
    values = {"init": 3.0, "first": 2 * median, "median": median, "p90": 1.25 * median, "p99": 1.5 * median,
              "min": 0.9 * median, "spread": 0.05, "throughput": 1000 / median, **TIMES, **others}
    return Result(name, f"{size:064x}", size, values.pop("target", "host"), **values)


@pytest.fixture
def results() -> list[Result]:
    places = ["builtin", "XNNPACK"] * 10
    profile = tuple(OperationTime(f"OP_{n}", f"layer_{n}", place, 1.0 / (n + 1)) for n, place in enumerate(places))
    return [
        timed("float32", 1_048_576, 2.0, accuracy=0.9142, ratio=1.0, peak_memory=4 << 20, operations=profile,
              agreement=Agreement("reference", 1000, 0.5, 2e-7, "real")),
        timed("int8", 262_144, 1.0, accuracy=0.9121, ratio=0.5, peak_memory=1 << 20,
              agreement=Agreement("reference", 1000, 0.97, 3, "steps"), warnings=("The machine was busy.",)),
        Result("float32", "0" * 64, 1_048_576, "tflm", "failed", "it has no operation ATAN2"),
        Result("int8", "1" * 64, 262_144, "tflm", arena={"total": 16384, "head": 8192, "tail": 4096},
               agreement=Agreement("reference", 1000, 1.0, 0, "steps")),
        timed("int8", 262_144, 0.05, target="ethos-u", device="ethos-u55-128", estimate=True, threads=None,
              counts={"cycles_npu": 27497}),
    ]  # fmt: skip


class Tags(HTMLParser):
    """Every start tag with its attributes, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data + " "


def written(results, tmp_path, **settings) -> tuple[str, Tags]:
    path = report(results, tmp_path / "page.html", **settings)
    text = path.read_text("utf-8")
    return text, Tags(text)


def test_figures_are_those_of_the_results(results, tmp_path):
    _, page = written(results, tmp_path, title="Fashion")
    shown = " ".join(page.text.replace("\N{NO-BREAK SPACE}", " ").split())
    for text in ("Fashion", "2 files on 3 targets: 5 measurements, 1 without a figure", "Fastest on host 1.00 ms int8",
                 "Smallest file 256 KiB int8", "Most accurate 91.42 % float32", "it has no operation ATAN2",
                 "The machine was busy.", "27,497", "16.0 KiB", "97.00 % equal differs by up to 3 steps",
                 "100 % equal bit-equal", "OP_0 layer_0, 27.8 %", "6 more", "Board 9", "estimate, no device ran"):
        assert text in shown, text


def test_lengths_of_bars_are_those_of_the_numbers(results):
    shown = view(results, "t")
    host = shown.latency[0]
    # The scale ends at the slowest 99th: 3.0 ms.
    assert [round(bar.parts[0][0], 6) for bar in host.bars] == [round(100 * 2 / 3, 6), round(100 / 3, 6)]
    assert [tuple(round(place, 6) for place in bar.line) for bar in host.bars] == [(60.0, round(250 / 3, 6)),
                                                                                  (30.0, round(125 / 3, 6))]
    assert [bar.tick for bar in host.bars] == [100.0, 50.0]
    assert [chart.estimate for chart in shown.latency] == [False, True]
    sizes, peak, arena = shown.memory
    assert [[bar.parts[0][0] for bar in chart.bars] for chart in (sizes, peak)] == [[100, 25], [100, 25]]
    assert [(round(length), what) for length, _, what in arena.bars[0].parts] == [
        (50, "values 8.00 KiB"), (25, "structures 4.00 KiB"), (25, "other 4.00 KiB")]
    # 1/1 + 1/2 + ... + 1/20 = 3.5977; fourteen are shown and six summed up.
    operations = shown.operations[0]
    assert len(operations.bars) == 15 and operations.bars[1].parts[0][0] == 50.0
    assert operations.bars[-1].label == "6 more"
    assert operations.bars[-1].parts[0][0] == pytest.approx(100 * sum(1 / n for n in range(15, 21)))
    assert operations.legend == (("c0", "builtin: 10 operations"), ("c1", "XNNPACK: 10 operations"))


def test_points_lie_where_accuracy_and_size_say(results):
    first, second = view(results, "t").scatter.points
    # Linear: the axis ends 10 % above the largest; the accuracies' axis has 0.5 points of margin.
    assert first.x == pytest.approx(100 / 1.1) and second.x == pytest.approx(25 / 1.1)
    assert first.y == pytest.approx(100 * 0.005 / 0.0121) and second.y == pytest.approx(100 * 0.0071 / 0.0121)
    wide = [replace(results[0], size=10_000), replace(results[1], size=1_000_000)]
    spread = view(wide, "t").scatter
    assert spread.logarithmic and spread.points[0].x < 10 and spread.points[1].x > 90
    near = [results[0], replace(results[0], target="arm64"), replace(results[0], target="web", accuracy=0.9141)]
    points = view(near, "t").scatter.points
    assert [(point.name, point.aside) for point in points] == [("float32 (host, arm64)", 0), ("float32 (web)", 1)]


def test_the_same_file_twice_on_a_target_is_told_apart(results):
    two = [results[1], replace(results[1], threads=4), replace(results[1], device="Phone")]
    expected = ("host · Board 9 · 1 thread", "host · Board 9 · 4 threads", "host · Phone · 1 thread")
    assert view(two, "t").targets == expected
    assert view(results, "t").targets == ("host", "tflm", "ethos-u")
    # A device that was not there does not split its column.
    assert view([results[0], replace(results[1], device="", status="failed")], "t").targets == ("host",)


def test_what_differs_by_more_than_rounding_is_marked(results):
    def states(unit: str, *differences: float) -> list[str]:
        told = [replace(results[0], agreement=Agreement("reference", 10, 0.9, one, unit)) for one in differences]
        return [row[-1] for row in view(told, "t").agreement]

    assert states("steps", 1, 3, 4, 200) == ["good", "good", "bad", "bad"]
    assert states("real", 1e-6, 0.5) == ["good", "bad"]
    assert view([replace(results[0], agreement=Agreement("reference", 10, 1.0, 0, "steps"))], "t").agreement[0][4:] == (
        "bit-equal", "good")  # fmt: skip


def test_a_warning_of_several_files_stands_once(results):
    busy = [replace(results[0], warnings=("busy",)), replace(results[1], warnings=("busy", "noisy"))]
    assert view(busy, "t").problems == (("float32, int8", "host", "busy", "note"), ("int8", "host", "noisy", "note"))


def test_json_lines_and_results_give_the_same_page(results, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines(results[:2]) + "\n")
    (tmp_path / "b.jsonl").write_text(lines(results[2:3]))
    expected = report(results, tmp_path / "one.html").read_bytes()
    mixed = [tmp_path / "a.jsonl", str(tmp_path / "b.jsonl"), *results[3:]]
    assert report(mixed, tmp_path / "two.html").read_bytes() == expected
    assert b"int8" in report(results[3], tmp_path / "three.html").read_bytes()


def test_nothing_is_loaded_and_nothing_runs(results, tmp_path):
    text, page = written(results, tmp_path)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "base", "form")]
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("href", "src", "action", "xlink:href"):
                assert value.startswith(("#", "data:")), (tag, value)
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert re.findall(r"url\(([^)]*)\)", text) in ([], ["#hatch"])
    assert "default-src 'none'" in text


def hostile(results: list[Result]) -> list[Result]:
    texts = {"device": HOSTILE, "runtime": HOSTILE, "version": HOSTILE, "delegate": HOSTILE, "warnings": (HOSTILE,),
             "counts": {HOSTILE: 1.0}, "operations": (OperationTime(HOSTILE, HOSTILE, HOSTILE, 1.0, HOSTILE),),
             "agreement": Agreement(HOSTILE, 1, 0.5, 1, HOSTILE)}
    return [timed(HOSTILE, 10, 1.0, target=HOSTILE, accuracy=0.5, **texts), *results,
            Result("x" * 400, "2" * 64, 10, "y" * 300, "failed", "z" * 500)]


def test_texts_of_results_are_shown_and_never_markup(results, tmp_path):
    clean, _ = written(results, tmp_path)
    kinds = {tag for tag, _ in Tags(clean).tags}
    _, page = written(hostile(results), tmp_path, title=HOSTILE)
    assert {tag for tag, _ in page.tags} == kinds
    assert page.text.count("<script>alert(1)</script>") > 10 and "{{ 7 * 7 }}" in page.text
    assert [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)] == []


@pytest.mark.parametrize(("change", "message"), [
    ({"median": "<b>"}, "`median` of a result must be"),
    ({"median": float("nan")}, "`median` of a result must be"),
    ({"p90": -1.0}, "`p90` of a result must be"),
    ({"size": "10"}, "`size` of a result"),
    ({"size": None}, "`size` of a result"),
    ({"name": 3}, "`name` of a result"),
    ({"status": "fine"}, "`status` of a result"),
    ({"arena": {"total": "x"}}, "`arena` of a result"),
    ({"counts": [1]}, "`counts` of a result"),
    ({"operations": (OperationTime("a", "b", "c", "d"),)}, "`operations` of a result"),
    ({"agreement": Agreement("a", 1, None, 1, "steps")}, "`agreement` of a result"),
    ({"warnings": (1,)}, "`warnings` of a result"),
])  # fmt: skip
def test_fields_of_another_type_are_refused(results, change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        report([replace(results[0], **change)], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_wrong_arguments(results, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="at least one result"):
        report([], tmp_path / "page.html")
    with pytest.raises(ValueError, match=r"must hold results or paths.*Received: int"):
        report([3], tmp_path / "page.html")
    (tmp_path / "bad.jsonl").write_text(lines(results[:1]) + "\n{}\n")
    with pytest.raises(ValueError, match=r"bad\.jsonl, line 3: not a benchmark result"):
        report(tmp_path / "bad.jsonl", tmp_path / "page.html")
    with pytest.raises(OSError, match=r"none\.jsonl"):
        report("none.jsonl", tmp_path / "page.html")
    with pytest.raises(ExportError, match="Cannot write"):
        report(results, tmp_path / "none" / "page.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"pip install 'tfcompress\[report\]'"):
        report(results, tmp_path / "page.html")


def test_results_without_figures_make_a_page(tmp_path):
    text, page = written([Result("a", "0" * 64, 0, "host", "unavailable", "")], tmp_path)
    assert "unavailable" in page.text and "<h2 id=\"latency\">" not in text
    written([Result("a", "0" * 64, 0, "host", median=0.0, min=0.0, p90=0.0, accuracy=0.0)], tmp_path)
    written([Result("a", "0" * 64, 5, "host", accuracy=1.0), Result("b", "0" * 64, 5, "host", accuracy=1.0)], tmp_path)


def test_a_browser_shows_it_without_errors_requests_or_overflow(results, tmp_path):
    clean = report(results, tmp_path / "clean.html").as_uri()
    nasty = report(hostile(results), tmp_path / "nasty.html", title=HOSTILE).as_uri()
    with Page(tmp_path / "profile") as page:
        colors = set()
        for url in (clean, nasty):
            for width, dark in ((360, False), (360, True), (1200, False)):
                page.open(url, width=width, dark=dark)
                assert page.evaluate("document.documentElement.scrollWidth") == width, (url, width)
                assert page.evaluate("document.body.scrollWidth") <= width
                assert page.messages == [] and page.requests == [url]
                assert page.evaluate("document.scripts.length + document.images.length") == 0
                colors.add((dark, page.evaluate("getComputedStyle(document.body).backgroundColor")))
        assert len(colors) == 2  # one for light and one for dark
        assert page.evaluate("document.title").startswith("<script>alert(1)</script>")
        page.open(clean, width=360)
        widths = page.evaluate("""[...document.querySelectorAll('section[aria-labelledby=latency] .bar')].map(
            bar => bar.querySelector('.c0, .c1').getBBox().width / bar.getBoundingClientRect().width)""")
        assert widths[:2] == pytest.approx([2 / 3, 1 / 3], abs=0.002)
        unnamed = page.evaluate("""[...document.querySelectorAll('svg[role=img]')].filter(
            one => !one.getAttribute('aria-label') || !one.querySelector('title')).length""")
        assert unnamed == 0
        small = page.evaluate("""Math.min(...[...document.querySelectorAll('body *')].filter(
            one => one.textContent.trim()).map(one => parseFloat(getComputedStyle(one).fontSize)))""")
        assert small >= 12  # readable


def test_the_template_is_beside_the_code():
    folder = Path(sys.modules["tflite_export.bench.page"].__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {"page.html.jinja", "page.css"}
