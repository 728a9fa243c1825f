"""Figures in the documents: each was left in docs/measurements by a run or a benchmark, or is quoted with a reason."""

import re
from pathlib import Path

import nbformat
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "docs" / "measurements"
QUOTED = pd.read_csv(KEPT / "quoted.csv", dtype=str).set_index("figure")["why"]
UNITS = "s|ms|seconds|minutes|MB|MiB|GB|images|lesions|times"
FIGURE = re.compile(
    r"(?<![\w.,/§:-])"
    rf"(?P<number>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+\.\d+|\d+(?= ?%|-? (?:{UNITS})\b))"
    r"(?P<percent> ?%)?(?![\w/]|\.\d)"
)
HAM10000 = (
    *("ham10000/*", "ham10000/data/*", "ham10000_seven/*", "presets.csv"),
    *("benchmarks/presets.txt", "benchmarks/lesions.txt", "benchmarks/camera.txt"),
)
SERVICE = ("docs/tdsp/charter.md", "docs/tdsp/exit_report.md")  # these speak of its goals, too
SAMPLE = "the committed notebooks"
DOCUMENTS = {  # and where its figures come from; those of docs/howto/many_images.md are held by test_repository.py
    **{path.relative_to(ROOT).as_posix(): HAM10000 for path in sorted((ROOT / "docs" / "tdsp").glob("*.md"))},
    **{name: (*HAM10000, "benchmarks/service.txt") for name in SERVICE},
    "README.md": HAM10000,
    "docs/results.md": (*HAM10000, "benchmarks/[mp]a*.txt", SAMPLE),
    "docs/howto/more_than_two_classes.md": HAM10000,
    "docs/howto/a_better_model.md": HAM10000,
    "docs/service.md": ("benchmarks/*", "ham10000/printed.txt"),
    "docs/azure.md": ("benchmarks/gate.txt", "benchmarks/few.txt"),
    "code/02_modeling/04_what_the_settings_do.ipynb": ("settings.csv", SAMPLE),
}


def prose(name):
    """Return the words of a document without code, addresses, and what stands below "## Benchmarks"."""
    path = ROOT / name
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, 4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text(encoding="utf-8").partition("\n## Benchmarks")[0]
    return re.sub(
        r"^```.*?^```|`[^`\n]*`|\]\([^)\s]*\)|<!--.*?-->", " ", text, flags=re.MULTILINE | re.DOTALL
    )


def printed():
    """Return what the cells of the committed notebooks printed."""
    cells = [cell for path in ROOT.glob("code/0*/*.ipynb") for cell in nbformat.read(path, 4).cells]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return " ".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def numbers(patterns):
    """Return every number that stands in the kept files: set of float."""
    files = [file for pattern in patterns for file in KEPT.glob(pattern) if file.suffix not in (".jpg", "")]
    texts = [
        file.read_text(encoding="utf-8").replace(",", " " if file.suffix == ".csv" else ",") for file in files
    ]
    texts.append(printed() if SAMPLE in patterns else "")
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?", " ".join(texts))
    return {float(number.replace(",", "")) for number in found}


def unknown(text, known):
    """List the figures of a text that are neither known nor quoted."""
    missing = []
    for match in FIGURE.finditer(text):
        number, figure = match["number"], match[0]
        decimals = len(number.partition(".")[2])
        value = float(number.replace(",", ""))
        scales = (1, 100) if match["percent"] else (1,)
        if number not in QUOTED and figure not in QUOTED:
            if not any(
                abs(each * scale - value) <= 0.5 * 10**-decimals + 1e-9 for each in known for scale in scales
            ):
                missing.append(
                    f"{figure} in: …{text[max(match.start() - 40, 0) : match.end() + 20]}…".replace("\n", " ")
                )
    return missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_figure_was_measured(name):
    known = numbers(DOCUMENTS[name])
    assert known, f"nothing is kept of {DOCUMENTS[name]}"
    assert not unknown(prose(name), known)


def test_a_figure_that_nobody_measured_is_found():
    text = "An AUC of 0.912 on 6,543 images, 41.3 % of them in 12 seconds; version 3.11.7, 200x150, and 1/3."
    assert unknown(text, {0.9117, 6543, 0.4126, 12.4}) == []
    assert [each.partition(" in:")[0] for each in unknown(text, {1.0})] == ["0.912", "6,543", "41.3 %", "12"]


def test_quoted_figures_have_a_reason_and_are_used():
    everything = "\n".join(prose(name) for name in DOCUMENTS)
    found = {match[0] for match in FIGURE.finditer(everything)} | {
        match["number"] for match in FIGURE.finditer(everything)
    }
    assert QUOTED.str.len().min() > 10
    assert set(QUOTED.index) <= found, set(QUOTED.index) - found
