"""Draw docs/images/walk.jpg, the first image of the README, from the outputs of a run on the bundled sample.

    make run
    .venv/bin/python docs/images/make_walk.py outputs

The script starts the service of the run's bundle and takes a screenshot of its page: like the browser tests it needs
Chromium and Playwright. The text stays readable at the width of a README on GitHub.
"""

import argparse
import io
import json
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from PIL import Image
from playwright.sync_api import sync_playwright

from isicvision import PROJECT_ROOT, Evaluation, ImageDataset, deploy_local, plots
from isicvision.images import decode

TARGET = Path(__file__).with_name("walk.jpg")
LAYOUT = """
#drop { padding: .5rem; margin: .75rem 0 } #name, #model, #where, #drop br, #drop .quiet { display: none !important }
#result { grid-template-columns: minmax(0, 1fr) minmax(0, 1.1fr) !important; gap: .75rem !important }
"""
"""Keeps two columns in a window narrow enough for its text to stay readable in a quarter of the image."""


def photograph(bundle, image):
    """Return a screenshot of the service's page with a scored image: PIL.Image.Image."""
    with deploy_local(bundle) as service, sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=found, args=["--disable-gpu"])
        # bypass_csp: the page's policy would refuse LAYOUT
        size = {"width": 390, "height": 300}
        page = browser.new_page(viewport=size, device_scale_factor=2, bypass_csp=True)
        page.goto(service.scoring_uri)
        page.add_style_tag(content=LAYOUT)
        page.locator("#file").set_input_files(image)
        page.get_by_text("Scored.").wait_for()
        shot = page.screenshot(full_page=True)
        browser.close()
    return Image.open(io.BytesIO(shot))


def draw_images(part, dataset):
    """Draw three images of each label."""
    for row, label in zip(part.subplots(2, 3), dataset.labels, strict=True):
        shown = dataset.table[dataset.table["label"] == label].sample(3, random_state=3)
        for ax, path in zip(row, shown["path"], strict=True):
            ax.imshow(decode(path, 200))
            ax.set(xticks=[], yticks=[], frame_on=False)
        row[1].set_title(label, fontsize=8)
    part.supxlabel("synthetic images of the bundled sample", fontsize=7, color="0.35")


def draw_training(part, history):
    """Draw the ROC AUC on the validation images after each epoch."""
    ax = part.subplots()
    ax.plot(history["epoch"], history["validation_roc_auc"], "o-", color=plots.style.COLORS[1], markersize=3)
    ax.axhline(0.5, linestyle=":", color="0.5")
    ax.annotate("chance", (history["epoch"].max(), 0.5), ha="right", va="bottom", color="0.35")
    ax.set(ylim=(0.4, 1.02), xlabel="epoch", ylabel="ROC AUC, validation images")
    ax.xaxis.get_major_locator().set_params(integer=True)


def draw_evaluation(part, evaluation):
    """Draw the ROC curve on the test images with its band."""
    ax = plots.roc(evaluation, part.subplots())
    ax.get_legend().remove()
    ax.lines[1].set_markersize(4)
    ax.annotate("threshold", ax.lines[1].get_xydata()[0] + (-0.05, 0.02), va="bottom", ha="right")
    ax.set_title(f"area {evaluation.text('roc_auc')}", fontsize=8)
    ax.set(xlabel="false positive rate", ylabel=f"recall, {len(evaluation.table)} test images")
    ax.set_xticks([0, 0.5, 1])


def draw_service(part, photo):
    """Show the page of the service."""
    ax = part.subplots()
    ax.imshow(photo)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color("0.7")


def compose(outputs):
    """Draw the four panels from the outputs of a run: matplotlib.figure.Figure."""
    evaluation = Evaluation.load(outputs / "evaluation" / "predictions.csv")
    positive = evaluation.table[evaluation.table["label"] == evaluation.positive]
    found = positive.sort_values(f"score_{evaluation.positive}").iloc[len(positive) // 2]["path"]
    history = pd.DataFrame(json.loads((outputs / "model" / "run.json").read_text())["history"])
    plt.rcParams.update({"font.size": 7, "axes.linewidth": 0.6, "axes.labelsize": 7.5})
    figure = plt.figure(figsize=(8.5, 2.5), dpi=200, layout="constrained")
    panels = {
        "1  look at images": (draw_images, ImageDataset.load(outputs / "dataset.csv"), 2.2),
        "2  train a network": (draw_training, history, 1.8),
        "3  evaluate it": (draw_evaluation, evaluation, 2.0),
        "4  put it behind a web service": (draw_service, photograph(outputs / "bundle", found), 2.7),
    }
    parts = figure.subfigures(1, len(panels), width_ratios=[width for *_, width in panels.values()])
    for part, (title, (draw, what, _)) in zip(parts, panels.items(), strict=True):
        part.suptitle(title, fontsize=9, fontweight="bold", x=0.02, ha="left")
        draw(part, what)
    return figure


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outputs", type=Path, help="folder of the run")
    folder = parser.parse_args().outputs.resolve()
    os.chdir(PROJECT_ROOT)  # the tables of a run hold paths relative to it
    compose(folder).savefig(TARGET, pil_kwargs={"quality": 85})
    print("written:", TARGET)
