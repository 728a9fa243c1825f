import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import draw
from imgaug import augmenters as iaa
from sklearn.linear_model import LogisticRegression

from isicvision import (
    Evaluation,
    ImageClassifier,
    ImageDataset,
    Neighbors,
    augment_dataset,
    augmentation,
    plots,
    widgets,
)
from isicvision.data.annotation import EXCLUDE
from isicvision.data.augmentation import Pipeline, dermoscopy
from isicvision.model.settings import Settings
from isicvision.widgets import pages


@pytest.fixture(autouse=True)
def close_figures():
    plt.close("all")
    yield
    assert not plt.get_fignums()  # widgets leave no figure that a notebook would show once more
    plt.close("all")


@pytest.fixture
def evaluation(dataset):
    scores = np.linspace(0.02, 0.98, len(dataset))
    scores[[2, 20]] = 0.7, 0.2  # two mistakes
    return Evaluation.from_scores(dataset.table["label"], scores, metadata=dataset.table)


@pytest.fixture
def three(dataset):
    """An evaluation of three classes, of which one is absent."""
    scores = np.tile([0.6, 0.3, 0.1], (24, 1))
    scores[15:] = 0.2, 0.7, 0.1
    classes = ["benign", "malignant", "wart"]
    return Evaluation.from_scores(dataset.table["label"], scores, classes=classes, metadata=dataset.table)


@pytest.fixture
def ui(dataset, tmp_path):
    return widgets.AnnotationUI(dataset, tmp_path / "decisions.csv", per_page=10)


def titles(pages):
    return [caption["title"] for caption in pages.grid.captions]


def bar(ui):
    """The buttons of labels and keys, the progress and the counts."""
    return ui.view.children[0].children[-1].children


def tell(pages, *events):
    """Send clicks and keys as the browser does: in one message, however many there were."""
    told, turn = pages.grid.events, pages.grid.turn
    events = [{"turn": turn, "number": len(told) + 1 + n} | event for n, event in enumerate(events)]
    pages.grid.set_state({"events": [*told, *events]})


def press(pages, key):
    """Press a key as the browser reports it."""
    tell(pages, {"key": key})


def test_each_event_of_the_page_counts_once_and_in_its_order(ui):
    tell(ui, {"selected": 4}, {"key": "x"}, {"selected": 0})
    events = ui.grid.events
    assert (ui.counts["excluded"], ui.annotations.is_decided(ui.rows["path"][4]), ui.grid.selected) == (
        1,
        True,
        0,
    )
    ui.grid.set_state({"events": [*events[1:], {"key": "Enter", "number": 4, "turn": ui.grid.turn}]})
    assert (ui.counts["decided"], ui.annotations.is_decided(ui.rows["path"][0]), ui.grid.selected) == (
        2,
        True,
        1,
    )


def test_the_page_learns_at_once_what_its_clicks_and_keys_came_to(ui, monkeypatch):
    sent = []
    monkeypatch.setattr(ui.grid, "send_state", lambda names: sent.append({*names}))
    tell(ui, {"key": "2"}, {"selected": 5})
    assert len(sent) == 1 and {"selected", "heard", "captions", "status"} <= sent[0]
    assert (ui.grid.selected, ui.grid.heard) == (5, 2)


def test_what_was_meant_for_the_page_before_labels_no_image_of_the_next(ui):
    """A busy notebook hears of several clicks and keys at once, the last of which turns the page."""
    tell(ui, {"selected": 8})
    tell(
        ui,
        {"key": "2"},
        {"selected": 9},
        {"key": "2"},
        {"selected": 5},
        {"key": "2"},
    )
    assert (ui.page, ui.grid.selected, ui.grid.status) == (
        1,
        0,
        f"{Path(ui.rows['path'][9]).stem}: malignant. Page 2.",
    )
    decided = [ui.annotations.is_decided(path) for path in ui.rows["path"]]
    assert [n for n, each in enumerate(decided) if each] == [8, 9]


def test_keys_decide_about_the_selected_image_and_go_on_to_the_next(dataset, ui):
    press(ui, "2")
    press(ui, "Enter")
    press(ui, "x")
    assert titles(ui)[:4] == ["malignant (was benign) ✓", "benign ✓", "(exclude) (was benign) ✓", "benign"]
    assert ui.grid.selected == 3 and ui.grid.captions[2]["dim"]
    assert len(ui.dataset) == 23 and ui.dataset.table.loc[0, "label"] == "malignant"
    assert ui._count.value == "3 of 24 decided: 1 relabeled, 1 excluded" and ui._progress.value == 3
    assert ui.counts == {"images": 24, "decided": 3, "relabeled": 1, "excluded": 1}


def test_undo_goes_to_the_image_wherever_it_is(ui):
    ui.grid.selected = 4
    press(ui, "2")
    press(ui, "n")
    press(ui, "u")
    assert (ui.page, ui.grid.selected) == (0, 4) and titles(ui)[4] == "benign"
    press(ui, "u")  # nothing left
    assert ui.annotations.progress()["decided"] == 0


def test_a_decision_that_cannot_be_written_is_said_so_and_nothing_goes_on(dataset, tmp_path):
    ui = widgets.AnnotationUI(dataset, tmp_path / "d.csv")
    (tmp_path / "d.csv").mkdir()  # no file can be written there
    press(ui, "2")
    assert ui.grid.status.startswith("Not saved: ") and "d.csv" in ui.grid.status
    assert ui.grid.selected == 0 and titles(ui)[0] == "benign"
    (tmp_path / "d.csv").rmdir()
    press(ui, "2")
    assert titles(ui)[0] == "malignant (was benign) ✓"


def labeled(dataset, labels):
    """The dataset with these labels in turn, as many images as there are labels at least."""
    count = max(len(dataset), len(labels))
    table = dataset.table.iloc[np.arange(count) % len(dataset)].reset_index(drop=True)
    paths = [f"{path}?{n}" if n >= len(dataset) else path for n, path in enumerate(table["path"])]
    return ImageDataset(table.assign(path=paths, label=[labels[n % len(labels)] for n in range(count)]))


def test_every_label_has_a_button_and_the_first_ones_a_key_each(dataset, tmp_path):
    names = [f"label {n:02d}" for n in range(40)]
    ui = widgets.AnnotationUI(labeled(dataset, names), tmp_path / "d.csv", per_page=40)
    buttons = {button.tooltip: button for button in bar(ui)[:40]}
    assert [*buttons] == names and buttons["label 09"].description == "label 09 [0]"
    keyed = [name for name in names if "[" in buttons[name].description]
    keys = [buttons[name].description[-2] for name in keyed]
    assert len({*keys}) == len(keys) == 31 and not {*keys} & {*"xuznp"}
    for place, (name, key) in enumerate(zip(keyed[::-1], keys[::-1], strict=True)):
        press(ui, key)
        assert ui.annotations.label(ui.rows["path"][place]) == name
    buttons["label 39"].click()
    assert ui.annotations.label(ui.rows["path"][31]) == "label 39"


def test_a_decision_on_the_last_image_of_a_page_goes_on_to_the_next_page(dataset, tmp_path):
    ui = widgets.AnnotationUI(dataset, tmp_path / "d.csv", per_page=12)
    ui.grid.selected = 11
    press(ui, "2")
    assert (ui.page, ui.grid.selected) == (1, 0) and ui.grid.status == "p22: malignant. Page 2."
    press(ui, "u")
    assert (ui.page, ui.grid.selected) == (0, 11) and ui.grid.status == "Undone. p22: benign."
    ui.turn(1)
    ui.grid.selected = 11
    press(ui, "x")
    assert (ui.page, ui.grid.selected) == (1, 11)
    assert ui.grid.status == "p23: (exclude). This is the last image shown."


def test_undo_says_when_there_is_nothing_to_take_back_and_what_it_took_back_out_of_sight(
    ui, dataset, tmp_path
):
    press(ui, "2")
    again = widgets.AnnotationUI(dataset, tmp_path / "decisions.csv")
    press(again, "u")
    assert again.grid.status.startswith("Nothing to undo")
    assert again.annotations.label(dataset.paths[0]) == "malignant"
    ui.filter.value = "undecided"
    press(ui, "u")
    assert ui.grid.status == "Undone. p00: benign. The filter hides this image."


@pytest.mark.parametrize("name", ["suspicious", "decided", "undecided", "relabeled", "all"])
def test_a_label_called_as_a_filter_is_shown_alone_and_the_filter_has_another_name(dataset, tmp_path, name):
    odd = labeled(dataset, ["benign", name])
    found = pd.DataFrame({"path": odd.paths, "quality": np.linspace(0.1, 0.9, 24)})
    found = found.assign(suggested="benign", issue=found["quality"] < 0.2)
    ui = widgets.AnnotationUI(odd, tmp_path / "d.csv", suspicion=found)
    assert ui.filter.options.count(name) == 1 and ui.filter.value in ("all", "(all)") and len(ui.rows) == 24
    ui.filter.value = name
    assert ui.rows["label"].tolist() == [name] * 12
    press(ui, "Enter")
    for own, count in {"suspicious": 2, "decided": 1, "undecided": 23}.items():
        ui.filter.value = f"({own})" if own == name else own
        assert len(ui.rows) == count, own
    without = widgets.AnnotationUI(labeled(dataset, ["benign", "suspicious"]), tmp_path / "d2.csv")
    without.filter.value = "suspicious"
    assert len(without.rows) == 12


def test_a_label_called_any_label_is_shown_alone_in_the_results(dataset):
    odd = labeled(dataset, ["any label", "benign"])
    evaluation = Evaluation.from_scores(
        odd.table["label"], np.full(24, 0.9), classes=["benign", "any label"], metadata=odd.table
    )
    ui = widgets.ResultsUI(evaluation)
    ui.filter.value = "all"
    assert ui.label.value == "(any label)" and len(ui.rows) == 24
    ui.label.value = "any label"
    assert ui.rows["label"].tolist() == ["any label"] * 12
    widgets.ConfusionMatrixUI(evaluation).show("benign", "any label")


def test_labels_may_be_given_as_numbers(dataset, tmp_path):
    numbers = labeled(dataset, ["0", "1"])
    ui = widgets.AnnotationUI(numbers, tmp_path / "d.csv")
    ui.decide(numbers.paths[0], 1)
    assert titles(ui)[0] == "1 (was 0) ✓"
    evaluation = Evaluation.from_scores(
        numbers.table["label"], np.full(24, 0.9), classes=[0, 1], metadata=numbers.table
    )
    matrix = widgets.ConfusionMatrixUI(evaluation)
    matrix.show(0, 1)
    assert matrix.cell == ("0", "1") and "12 images: 0, predicted 1" in matrix._title.value


ODD = ["<b>bold</b>", "$x^2$", "say \"a\" or 'b'", "😀", "Ä" * 300]


def test_odd_labels_are_text_that_fits_in_every_widget(dataset, tmp_path):
    odd = labeled(dataset, ODD)
    scores = np.random.default_rng(0).dirichlet(np.ones(5), 24)
    evaluation = Evaluation.from_scores(
        odd.table["label"], scores, classes=odd.labels, metadata=odd.table, positive="$x^2$"
    )
    shown = [
        widgets.AnnotationUI(odd, tmp_path / "d.csv"),
        widgets.ResultsUI(evaluation),
        widgets.ConfusionMatrixUI(evaluation),
        widgets.PrecisionRecallUI(evaluation),
    ]
    for each in shown:
        parts = [*everything(each.view)]
        html = [part.value for part in parts if isinstance(part, ipywidgets.HTML)]
        assert not any("<b>bold</b>" in text for text in html)
        # these two are set as mathematics by JupyterLab
        assert not any(isinstance(part, ipywidgets.Label) for part in parts)
        assert not any("$" in part.description for part in parts if hasattr(part, "description_allow_html"))
    for each in shown[:2]:
        captions = each.grid.captions
        assert max(len(caption["title"]) for caption in captions) < 120
        assert any("Ä" * 300 in caption["spoken"] for caption in captions)
    assert max(len(button.description) for button in bar(shown[0])[:5]) < 50


def everything(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything(child)


def test_what_a_screen_reader_says_of_an_image(dataset, tmp_path, evaluation):
    ui = widgets.AnnotationUI(dataset, tmp_path / "d.csv")
    press(ui, "2")
    spoken = [caption["spoken"] for caption in ui.grid.captions[:2]]
    assert spoken == ["malignant (was benign), decided, p00", "benign, undecided, p02"]
    wrong = widgets.ResultsUI(evaluation).grid.captions[0]["spoken"]
    assert wrong == "malignant, predicted benign, score 0.80, p17"


def test_buttons_do_what_keys_do(ui):
    buttons = bar(ui)
    names = [button.description for button in buttons[:-2]]
    assert names == ["benign [1]", "malignant [2]", "confirm [Enter]", "exclude [x]", "undo [u]", "zoom [z]"]
    buttons[1].click()
    assert titles(ui)[0].startswith("malignant")
    buttons[4].click()
    assert titles(ui)[0] == "benign"


def test_a_decision_survives_a_new_start(dataset, ui, tmp_path):
    ui.decide(dataset.paths[1], EXCLUDE)
    again = widgets.AnnotationUI(dataset, tmp_path / "decisions.csv")
    assert again.grid.captions[1]["dim"] and len(again.dataset) == 23
    with pytest.raises(ValueError, match="unknown label 'wart'"):
        again.decide(dataset.paths[0], "wart")


def test_an_image_stays_where_it_is_until_the_filter_is_applied_anew(ui):
    ui.filter.value = "undecided"
    press(ui, "2")
    assert len(ui.rows) == 24 and titles(ui)[0].endswith("✓")
    ui.filter.value = "malignant"
    assert len(ui.rows) == 13
    for name, count in {"decided": 1, "undecided": 23, "relabeled": 1, EXCLUDE: 0}.items():
        ui.filter.value = name
        assert len(ui.rows) == count == len(ui.grid.captions) or name == "undecided"
    press(ui, "2")  # no image, no decision
    press(ui, "z")


def test_suspicious_labels_come_first_and_can_be_had_alone(dataset, tmp_path):
    found = pd.DataFrame({"path": dataset.paths[::-1], "quality": np.linspace(0.1, 0.9, 24)})
    found = found.assign(suggested="benign", issue=found["quality"] < 0.2)
    ui = widgets.AnnotationUI(dataset, tmp_path / "d.csv", suspicion=found.sample(frac=1, random_state=0))
    assert ui.shown["path"].tolist() == dataset.paths[::-1]
    assert ui.grid.captions[0]["note"].endswith(", 10% for malignant")
    ui.filter.value = "suspicious"
    assert ui.rows["path"].tolist() == dataset.paths[:-4:-1]
    press(ui, "Enter")
    ui.refresh()
    assert len(ui.rows) == 2


def test_pages_turn_and_stop_at_both_ends(ui):
    ui.turn(1)
    assert ui._position.value == "11 to 20 of 24" and ui._credit.value == "Synthetic test image"
    press(ui, "n")
    press(ui, "n")
    assert ui._position.value == "21 to 24 of 24" and len(ui.grid.images) == 4
    ui.turn(-9)
    ui.filter.value = "malignant"
    assert ui._position.value == "1 to 10 of 12"


def test_the_selected_image_can_be_seen_large(dataset, ui):
    ui.grid.selected = 3
    press(ui, "z")
    assert ui.grid.large["image"].startswith("data:image/jpeg") and dataset.paths[3] in ui.grid.large["text"]
    ui.grid.selected = 4  # moving on closes it
    assert ui.grid.large == {}
    press(ui, "z")
    press(ui, "z")
    assert ui.grid.large == {}


def test_a_broken_image_is_gray_and_hinders_nothing(dataset, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    table = dataset.table.copy()
    table.loc[0, "path"] = str(tmp_path / "broken.jpg")
    ui = widgets.AnnotationUI(ImageDataset(table), tmp_path / "d.csv")
    press(ui, "x")
    assert len(ui.dataset) == 23
    ui.grid.selected = 0
    press(ui, "z")
    assert "broken.jpg: it is not an image" in ui.grid.large["text"]
    assert ui._repr_mimebundle_()["image/jpeg"]


def test_seven_thousand_images_open_at_once_and_are_read_page_by_page(folder, tmp_path, monkeypatch):
    source = next(folder.glob("*/*.jpg"))
    paths = [str(tmp_path / f"{number}.jpg") for number in range(7000)]
    for path in paths[:72]:
        os.link(source, path)
    table = pd.DataFrame({"path": paths, "label": ["a", "b"] * 3500, "group": paths})
    read = []
    decode = pages.decode
    monkeypatch.setattr(pages, "decode", lambda path, *rest: (read.append(path), decode(path, *rest))[1])
    ui = widgets.AnnotationUI(ImageDataset(table), tmp_path / "d.csv", per_page=24)
    ui.turn(1)
    deadline = time.monotonic() + 20
    while len({*read}) < 72 and time.monotonic() < deadline:  # the page after is fetched ahead
        time.sleep(0.01)
    assert {*read} == {*paths[:72]}


def test_results_show_the_wrong_ones_first_the_most_confident_before_the_others(evaluation):
    ui = widgets.ResultsUI(evaluation)
    wrong = (evaluation.table["label"] != evaluation.table["prediction"]).sum()
    assert titles(ui)[0] == "malignant, predicted benign" and len(ui.rows) == wrong
    assert ui.rows["confidence"].is_monotonic_decreasing
    bars = ui.grid.captions[0]["bars"]
    assert [bar[0] for bar in bars] == ["benign", "malignant"]
    assert sum(bar[1] for bar in bars) == pytest.approx(1)
    ui.filter.value = "right"
    assert all(title.endswith("✓") for title in titles(ui)) and ui.rows["confidence"].is_monotonic_increasing
    ui.label.value = "malignant"
    assert set(titles(ui)) == {"malignant ✓"}
    ui.filter.value, ui.label.value, ui.range.value = "all", "any label", (0.3, 0.5)
    assert ui.rows["score_malignant"].between(0.3, 0.5).all() and len(ui.rows) > 2


def test_what_is_just_over_a_low_threshold_is_no_confident_mistake(dataset):
    scores = np.linspace(0, 0.15, len(dataset))
    scores[:2] = 0.25, 0.9  # two benign ones over the threshold, of which one just so
    evaluation = Evaluation.from_scores(dataset.table["label"], scores, metadata=dataset.table, threshold=0.2)
    ui = widgets.ResultsUI(evaluation)
    ui.label.value = "benign"
    assert ui.rows["score_malignant"].tolist() == [0.9, 0.25] == ui.rows["confidence"].tolist()


def test_the_positive_label_is_that_of_the_evaluation(evaluation):
    turned = replace(evaluation, positive="benign")
    assert widgets.ResultsUI(turned).range.description == "score benign"
    ui = widgets.PrecisionRecallUI(turned)
    ui.threshold.value = 0.9
    assert (ui.evaluation.table["prediction"] == "malignant").sum() > 12
    assert "benign" in ui._axes[0].get_title()


def test_saliency_is_laid_over_on_demand(dataset, evaluation):
    model = ImageClassifier("efficientnet_lite0", dataset.labels, weights=None, image_size=64)
    ui = widgets.ResultsUI(evaluation, model, per_page=3)
    plain = ui.grid.images
    ui.saliency.value = True
    assert len(ui.grid.images) == len(plain) and ui.grid.images != plain
    press(ui, "z")
    assert ui.grid.large["image"].startswith("data:image")
    ui.saliency.value = False
    assert ui.grid.images == plain
    assert widgets.ResultsUI(evaluation).saliency.disabled


@pytest.mark.parametrize("curve", ["roc", "precision_recall"])
def test_a_click_on_a_curve_takes_the_threshold_of_the_nearest_point(evaluation, curve):
    ui = widgets.PrecisionRecallUI(evaluation)
    for x, y in ((0, 1), (0.4, 0.7), (1, 1)):
        ui.click(curve, x, y)
        now = ui.evaluation
        points = getattr(evaluation, curve)()
        points = points[np.isfinite(points["threshold"])].iloc[:, :2].to_numpy()
        here = (
            (1 - now.metric("specificity"), now.metric("recall"))
            if curve == "roc"
            else (now.metric("recall"), now.metric("precision"))
        )
        nearest = points[((points - (x, y)) ** 2).sum(axis=1).argmin()]
        assert here == pytest.approx(tuple(nearest))


def test_the_images_that_change_sides_are_shown(evaluation):
    ui = widgets.PrecisionRecallUI(evaluation.at(0.5))
    assert len(ui.changed.rows) == 0 and "those at 0.500: 0 of 24 images" in ui._figures.value
    ui.threshold.value = 0.8
    scores = evaluation.table["score_malignant"]
    expected = evaluation.table["path"][scores.between(0.5, 0.8)]
    assert sorted(ui.changed.rows["path"]) == sorted(expected)
    assert "recall" in ui._figures.value and ui.evaluation.threshold == 0.8
    assert ui._marks[0].get_data()[1][0] == ui.evaluation.metric("recall")


def test_other_plots_are_shown_as_before(evaluation, monkeypatch):
    before = plt.get_backend()
    monkeypatch.delitem(sys.modules, "ipympl", raising=False)  # whose import changes that
    widgets.PrecisionRecallUI(evaluation)
    assert plt.get_backend() == before


def test_a_click_in_the_figure_reaches_the_threshold(evaluation):
    ui = widgets.PrecisionRecallUI(evaluation)
    before = ui.threshold.value
    ui._canvases[0].draw()
    x, y = ui._axes[0].transData.transform((0.9, 0.9))
    message = {"type": "button_press", "x": x, "y": ui._canvases[0].figure.bbox.height - y, "button": 0}
    ui._canvases[0]._handle_message(None, message | {"guiEvent": {}, "modifiers": [], "buttons": 1}, [])
    assert ui.threshold.value < before


def test_more_classes_have_their_positive_one_against_the_others(three):
    ui = widgets.PrecisionRecallUI(replace(three, positive="malignant"))
    assert ui.evaluation.classes == ["(all others)", "malignant"]
    ui.click("roc", 0, 0)


def test_with_more_than_two_labels_the_threshold_is_said_to_be_of_no_use(three, evaluation):
    note = widgets.PrecisionRecallUI(replace(three, positive="malignant")).view.children[0].value
    assert "<b>malignant</b> against all other labels" in note and "with 3 labels" in note
    assert "uses no threshold" in note and not widgets.PrecisionRecallUI(evaluation).view.children[0].value


def test_counts_of_one_are_in_the_singular(dataset):
    scores = np.where(dataset.table["label"] == "malignant", 0.9, 0.1)
    scores[0] = 0.8
    evaluation = Evaluation.from_scores(dataset.table["label"], scores, metadata=dataset.table)
    assert "<b>1 image: benign, predicted malignant</b>" in widgets.ConfusionMatrixUI(evaluation)._title.value
    ui = widgets.PrecisionRecallUI(evaluation)
    ui.threshold.value = 0.85
    assert "those at 0.500: 1 of 24 images" in ui._figures.value


def test_a_cell_of_the_confusion_matrix_shows_its_images(evaluation):
    ui = widgets.ConfusionMatrixUI(evaluation)
    counts = evaluation.confusion_matrix()
    assert ui.cell[0] != ui.cell[1]  # the commonest mistake comes first
    for (true, predicted), button in ui.buttons.items():
        button.click()
        assert ui.cell == (true, predicted) and len(ui.images.rows) == counts.loc[true, predicted]
        assert button.description.startswith(f"{counts.loc[true, predicted]} (") and button.layout.border_top
    with pytest.raises(ValueError, match="no cell 'wart', 'benign'"):
        ui.show("wart", "benign")


def test_a_class_without_images_has_empty_cells(three):
    ui = widgets.ConfusionMatrixUI(three)
    ui.show("wart", "malignant")
    assert ui.images.rows.empty and ui.buttons["wart", "wart"].description == "0 (0%)"


def test_sliders_change_the_augmentation_and_its_line_of_code(dataset):
    ui = widgets.AugmentationUI(dataset)
    assert ui.parameters == {} and "dermoscopy()" in ui._code.value
    before = ui._image.value
    ui.sliders["hair"].value, ui.sliders["scale"].value = 1, (0.5, 0.6)
    assert ui.parameters == {"hair": 1, "scale": (0.5, 0.6)} and ui._image.value != before
    assert "dermoscopy(scale=(0.5, 0.6), hair=1.0)" in ui._code.value
    image = np.full((4, 32, 32, 3), 200, np.uint8)
    expected = Pipeline(dermoscopy(hair=1, scale=(0.5, 0.6)), 0)(image, range(4))
    assert (Pipeline(ui.augmenter, 0)(image, range(4)) == expected).all()


def test_an_augmentation_of_ones_own_gets_sliders_too(dataset):
    def mirrored(share=0.5, turn=(0, 1)):
        return iaa.Sequential([iaa.Fliplr(share), iaa.Rotate(turn)])

    ui = widgets.AugmentationUI(dataset, mirrored, images=1, views=2)
    assert [*ui.sliders] == ["share", "turn"]
    with pytest.raises(
        TypeError, match="parameter 'name' needs a number or a pair of numbers as its default, not 'x'"
    ):
        widgets.AugmentationUI(dataset, lambda name="x": None)


def test_parameters_begin_at_the_preset_and_become_code_that_runs(dataset):
    ui = widgets.ParamsUI("fast")
    model = ImageClassifier.from_preset("fast", dataset.labels, weights=None)
    assert Settings(**ui.training) == Settings(**model._learner.defaults)
    assert ui.model["image_size"] == model.image_size and ui.model["views"] == model.views
    ui.controls["epochs"].value = 2
    ui.controls["dropout"].value = 0.4
    ui.controls["learning_rate"].value = 0.01
    assert ui.training["epochs"] == 2 and ui.training["learning_rate"] == pytest.approx(0.01)
    before = ui._image.value
    ui.controls["schedule"].value = "cosine"
    assert ui._image.value != before
    made = []
    names = {"dataset": dataset, "train": dataset, "ImageClassifier": lambda *a, **k: Recorder(a, k, made)}
    names |= {"augment_dataset": augment_dataset, "augmentation": augmentation}
    code = ui.code
    exec(code, names)
    (positional, named), (trained, settings) = made
    assert positional == ("efficientnet_lite0", dataset.labels) and named["dropout"] == 0.4
    assert len(trained[0].augmenters) == 1 and Settings(**settings) == Settings(**ui.training)


class Recorder:
    def __init__(self, positional, named, calls):
        self.calls = calls
        calls.append((positional, named))

    def fit(self, *positional, **named):
        self.calls.append((positional, named))


def test_settings_that_do_not_go_together_are_said_so_and_the_next_change_draws_again():
    ui = widgets.ParamsUI()
    ui.controls["epochs"].value = 3
    ui.controls["freeze_epochs"].value = 5
    assert "freeze_epochs is at most epochs (3), not 5" in ui._code.value
    assert ui._repr_mimebundle_()["image/jpeg"]  # the cell can be run again
    ui.controls["freeze_epochs"].value = 1
    assert "freeze_epochs=1" in ui._code.value


def test_no_class_weight_is_shown_as_a_choice_and_rates_are_written_short():
    ui = widgets.ParamsUI("fast")
    weight = ui.controls["class_weight"]
    assert weight.label == "None" and ui.training["class_weight"] is None
    weight.label = "balanced"
    assert ui.training["class_weight"] == "balanced"
    weight.label = "None"
    ui.controls["l2"].value = 0.010000000000000021  # as the slider sends it
    assert weight.label == "None" and "l2=0.01, " in ui.code and "class_weight=None" in ui.code


def test_every_widget_carries_an_image_for_pages_without_a_kernel(dataset, evaluation, ui):
    shown = [
        ui,
        widgets.ResultsUI(evaluation),
        widgets.PrecisionRecallUI(evaluation),
        widgets.ConfusionMatrixUI(evaluation),
        widgets.AugmentationUI(dataset),
        widgets.ParamsUI(),
        widgets.MapUI(dataset, np.eye(24), ui.annotations.log),
    ]
    for each in shown:
        bundle = each._repr_mimebundle_()
        assert "application/vnd.jupyter.widget-view+json" in bundle and len(bundle["image/jpeg"]) > 1000


def test_the_image_of_the_curves_has_its_whole_legend_with_the_chosen_threshold(evaluation):
    figure = widgets.PrecisionRecallUI(evaluation)._figure()
    figure.canvas.draw()
    for ax in figure.axes:
        texts = ax.get_legend().get_texts()
        assert texts[3].get_text() == "at the slider's threshold"
        boxes = [text.get_window_extent() for text in (ax.title, *texts)]
        assert min(box.y0 for box in boxes) >= 0 and max(box.y1 for box in boxes) <= figure.bbox.height
        assert max(box.x1 for box in boxes) <= figure.bbox.width
    plt.close(figure)


def test_labels_are_shown_as_text_not_as_html(tmp_path):
    paths = [str(draw(tmp_path / f"{n}.jpg", (90, 90, 90), n)) for n in range(4)]
    classes = ["<b>x</b>", "y"]
    evaluation = Evaluation.from_scores(
        classes * 2, [0.1, 0.9, 0.8, 0.2], classes=classes, metadata=pd.DataFrame({"path": paths})
    )
    assert "<b>x</b>" not in widgets.ConfusionMatrixUI(evaluation)._title.value.replace("<b>2", "")
    assert "<b>x</b>" not in widgets.PrecisionRecallUI(evaluation)._figures.value


def test_credit_stands_below_the_page(ui):
    assert plots.credit(ui.shown) == ui._credit.value


@pytest.mark.parametrize("scores", [np.full(24, 0.5), np.zeros(24), np.ones(24)])
def test_scores_that_are_all_the_same_are_shown(dataset, scores):
    evaluation = Evaluation.from_scores(dataset.table["label"], scores, metadata=dataset.table)
    ui = widgets.PrecisionRecallUI(evaluation)
    ui.click("roc", 0, 1)
    ui.click("precision_recall", 0, 1)
    assert "undefined" in ui._figures.value
    widgets.ConfusionMatrixUI(evaluation)
    assert widgets.ResultsUI(evaluation)._repr_mimebundle_()["image/jpeg"]


def test_a_single_image_and_a_single_label_are_shown_but_have_no_curve(dataset):
    one = dataset.table.head(1)
    evaluation = Evaluation.from_scores(one["label"], [0.3], metadata=one)
    assert len(widgets.ResultsUI(evaluation).rows) == 0  # none is wrong
    assert widgets.ConfusionMatrixUI(evaluation).buttons["benign", "benign"].description == "1 (100%)"
    with pytest.raises(ValueError, match="with and without the label 'malignant'"):
        widgets.PrecisionRecallUI(evaluation)


@pytest.mark.parametrize("per_page", [0, -1, 1.5, float("nan")])
def test_a_page_has_a_whole_number_of_images(dataset, tmp_path, per_page):
    with pytest.raises(ValueError, match="per_page is a whole number of 1 or more, not"):
        widgets.AnnotationUI(dataset, tmp_path / "d.csv", per_page=per_page)


def test_an_empty_page_shows_nothing_and_has_an_image_all_the_same(dataset, tmp_path):
    ui = widgets.AnnotationUI(ImageDataset(dataset.table.head(0)), tmp_path / "d.csv")
    press(ui, "n")
    press(ui, "x")
    press(ui, "u")
    assert ui._position.value == "0 to 0 of 0" and ui._repr_mimebundle_()["image/jpeg"]


@pytest.fixture
def map_(dataset, tmp_path):
    table = dataset.table.assign(age=np.arange(24.0), sex=[*"fm"] * 11 + [None] * 2)
    features = np.random.default_rng(0).normal(size=(24, 4))
    return widgets.MapUI(replace(dataset, table=table), features, tmp_path / "decisions.csv")


def test_images_chosen_on_the_map_are_opened_and_relabeled_in_the_same_log(dataset, map_, tmp_path):
    assert map_.images.rows.empty and map_.map.status.startswith("Draw around points")
    map_.choose([2, 5, 20])
    assert map_.images.rows["path"].tolist() == [dataset.paths[n] for n in (2, 5, 20)]
    map_.images.press("2")
    map_.images.press("x")
    other = widgets.AnnotationUI(dataset, tmp_path / "decisions.csv")
    assert other.annotations.label(dataset.paths[2]) == "malignant"
    assert other.annotations.label(dataset.paths[5]) == EXCLUDE
    assert len(map_.images.dataset) == 23
    legend = {each["name"]: each["count"] for each in map_.map.legend}
    changed = sum(dataset.table["label"] == "malignant")
    changed += (dataset.table["label"][2] == "benign") - (dataset.table["label"][5] == "malignant")
    assert legend["malignant"] == changed and legend[EXCLUDE] == 1
    map_.choose([])
    assert map_.images.rows.empty


def test_points_have_a_place_within_the_map_and_the_code_of_their_value(map_):
    places = np.frombuffer(map_.map.places, np.float32).reshape(24, 2)
    assert places.min() >= 0 and places.max() <= 1 and np.ptp(places, axis=0).max() == pytest.approx(1)
    assert map_.color.options == ("label", "sex", "age")
    map_.color.value = "sex"
    assert [*map_.map.codes] == [0, 1] * 11 + [2, 2]
    assert [each["name"] for each in map_.map.legend] == ["f", "m", "(missing)"]
    assert "share its sex" in map_._words.value
    map_.color.value = "age"
    assert len(map_.map.legend) == 5 and np.bincount([*map_.map.codes]).tolist() == [5, 5, 4, 5, 5]


def test_the_image_under_the_mouse_is_sent_on_demand(dataset, map_, monkeypatch):
    sent = []
    monkeypatch.setattr(map_.map, "send", sent.append)
    map_.map._handle_custom_msg({"hover": 4}, [])
    (found,) = sent
    assert found["hover"] == 4 and found["image"].startswith("data:image/jpeg;base64,")
    assert found["text"] == f"{Path(dataset.paths[4]).stem}: {dataset.table['label'][4]}"


def test_a_map_of_three_images_or_of_an_unknown_column_is_refused_before_anything_slow(dataset, tmp_path):
    with pytest.raises(ValueError, match="a map needs 10 images or more, not 3"):
        widgets.MapUI(dataset.where(np.arange(24) < 3), np.eye(3), tmp_path / "decisions.csv")
    with pytest.raises(ValueError, match="no column 'sox'"):
        widgets.MapUI(dataset, None, tmp_path / "decisions.csv", "sox")


def test_the_training_images_most_like_the_selected_image_stand_beside_it(dataset, evaluation):
    model = ImageClassifier(
        "efficientnet_lite0", dataset.labels, image_size=64, classifier=LogisticRegression()
    )
    model.fit(dataset)
    neighbors = Neighbors(model, dataset)
    ui = widgets.ResultsUI(evaluation, model, neighbors=neighbors)
    for _ in range(2):
        path = ui.shown["path"].iloc[ui.grid.selected]
        assert ui.similar.status == f"Training images most like {Path(path).stem}"
        expected = neighbors.nearest([path])
        assert [caption["title"] for caption in ui.similar.captions] == expected["label"].tolist()
        assert ui.similar.captions[0]["note"] == f"{Path(path).stem}, distance 0.00"  # it was trained on
        assert len(ui.similar.images) == 3
        tell(ui, {"selected": 1})
    ui.range.value = (0, 0.01)
    assert not ui.similar.images and not ui.similar.status
    assert ui.similar not in widgets.ResultsUI(evaluation, model).view.children


def test_images_without_labels_get_their_first(dataset, tmp_path):
    unlabeled = ImageDataset(dataset.table.assign(label=""))
    ui = widgets.AnnotationUI(unlabeled, tmp_path / "d.csv", labels=["benign", "malignant"])
    assert titles(ui)[:2] == ["no label", "no label"]
    press(ui, "Enter")
    assert ui.grid.status.startswith("Not saved: unknown label None; there are: benign, malignant")
    press(ui, "2")
    press(ui, "x")
    assert titles(ui)[:3] == ["malignant ✓", "(exclude) ✓", "no label"]
    assert ui._count.value == "2 of 24 decided: 0 relabeled, 1 excluded"
    assert ui.dataset.paths == dataset.paths[:1]
    ui.filter.value = "relabeled"
    assert ui.rows.empty


def test_a_map_of_images_without_labels_says_so(dataset, tmp_path):
    unlabeled = ImageDataset(dataset.table.assign(label=""))
    ui = widgets.MapUI(unlabeled, np.eye(24), tmp_path / "d.csv", labels=["benign", "malignant"])
    assert [(each["name"], each["count"]) for each in ui.map.legend] == [("(missing)", 24)]
    ui.choose([0, 1])
    assert ui.map.status == "2 images: 2 without a label"
    press(ui.images, "1")
    assert {each["name"]: each["count"] for each in ui.map.legend} == {"benign": 1, "(missing)": 23}


def test_a_map_of_one_patient_opens_and_says_what_its_words_need(dataset, tmp_path):
    one = ImageDataset(dataset.table.assign(group="patient"))
    ui = widgets.MapUI(one, np.eye(24), tmp_path / "d.csv")
    assert ui._words.value == "5 neighbors in other groups are needed; the largest group leaves 0"
    ui.choose([3])
    assert ui.images.rows["path"].tolist() == dataset.paths[3:4]
