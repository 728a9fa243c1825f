"""7,006 real images in the browser; tests/bench/bench_widgets.py prints the times that this takes."""

import time

import pytest

from isicvision import PROJECT_ROOT

CELLS = [
    f"""
import sys
sys.path.insert(0, "{PROJECT_ROOT}/tests/bench")
from bench_settings import dataset
from isicvision import widgets
images = dataset()
""",
    'ui = widgets.AnnotationUI(images, "decisions.csv")\nui',
]


@pytest.mark.real
def test_thousands_of_images_open_and_turn(lab, real_data):
    lab.show(CELLS)
    lab.page.get_by_text("1 to 24 of 7006").wait_for()
    lab.page.locator(".isic-cell").nth(23).wait_for()
    started = time.perf_counter()
    lab.command("notebook:run-cell")  # the last one, anew
    lab.page.locator(".isic-cell").nth(23).wait_for()
    print(f"  open AnnotationUI                         {time.perf_counter() - started:6.2f} s")
    for first in (25, 49, 73):
        started = time.perf_counter()
        lab.page.get_by_role("button", name="Next").click()
        lab.page.get_by_text(f"{first} to {first + 23} of 7006").wait_for()
        lab.page.wait_for_function(
            "name => document.querySelector('.isic-cell .isic-note').textContent.startsWith(name)",
            arg=lab.value(f"images.table['image_id'][{first - 1}]"),
        )
        print(f"  next page                                 {time.perf_counter() - started:6.2f} s")
