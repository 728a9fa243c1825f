from dataclasses import replace
from itertools import pairwise

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from imgaug import augmenters as iaa
from matplotlib.figure import Figure

from isicvision import Evaluation, ImageDataset, associations, augment_dataset, comparison, featuremap, plots
from isicvision.model.history import History


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def evaluation(dataset):
    scores = np.linspace(0, 1, len(dataset))
    scores[[2, 20]] = 0.7, 0.2  # two mistakes
    return Evaluation.from_scores(dataset.table["label"], scores, metadata=dataset.table)


def contrast(one, other):
    """The contrast of two colors, RGB from 0 to 1, as WCAG 2.2 has it."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@given(color=st.tuples(*[st.floats(0, 1)] * 3))
def test_text_on_any_color_can_be_read(color):
    assert contrast(matplotlib.colors.to_rgb(plots.style.ink(color)), color) >= 4.5


@pytest.mark.parametrize("wrong", range(11))
def test_the_counts_of_a_confusion_matrix_can_be_read_on_any_shade(wrong):
    scores = np.r_[np.full(10 - wrong, 0.9), np.full(wrong, 0.1), np.full(10, 0.1)]
    ax = plots.confusion(Evaluation.from_scores([1] * 10 + [0] * 10, scores, classes=[0, 1]))
    image = ax.images[0]
    shades = image.cmap(image.norm(image.get_array()))[..., :3].reshape(-1, 3)
    for text, shade in zip(ax.texts, shades, strict=True):
        assert contrast(matplotlib.colors.to_rgb(text.get_color()), shade) >= 4.5


def test_each_plot_draws_and_leaves_the_global_random_state_alone(dataset, evaluation):
    state = np.random.get_state()[1].copy()
    plots.class_balance(dataset)
    plots.distribution(dataset, "sex")
    plots.augmented(augment_dataset(dataset, iaa.Fliplr(0.5)), images=2, views=2)
    table = pd.DataFrame({"train_loss": [1, 0.5], "learning_rate": [0.1, 0.01]}, index=[1, 2])
    plots.history(History(table, [], "fp32"))
    for plot in (plots.roc, plots.precision_recall, plots.confusion, plots.scores):
        assert plot(evaluation).get_title()
    assert (np.random.get_state()[1] == state).all()


def test_the_curves_of_several_networks_are_not_joined():
    rows = {"train_loss": [1, 0.5, 0.9, 0.4], "learning_rate": [0.1, 0.01] * 2, "network": [1, 1, 2, 2]}
    loss = plots.history(History(pd.DataFrame(rows, index=[1, 2, 3, 4]), [], "fp32")).axes[0]
    assert [[*line.get_xdata()] for line in loss.lines] == [[1, 2], [3, 4], [2.5, 2.5]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train"]


def test_scores_of_many_labels_are_drawn_as_the_positive_one_and_the_others():
    labels = list("abcdeabcde")
    evaluation = Evaluation.from_scores(labels, np.full((10, 5), 0.2), classes=list("abcde"), positive="b")
    legend = [text.get_text() for text in plots.scores(evaluation).get_legend().get_texts()]
    assert legend == ["(all others) (n = 8)", "b (n = 2)"]


def test_scores_are_shares_of_each_label_beside_the_threshold_in_use(evaluation):
    ax = plots.scores(evaluation.at(0.25))
    assert [line.get_xdata()[0] for line in ax.lines] == [0.25]
    heights = [sum(bar.get_height() for bar in bars) for bars in ax.containers]
    assert heights == pytest.approx([1, 1]) and ax.get_ylabel() == "share of the label's images"


def test_a_grid_names_labels_and_says_where_the_images_come_from(dataset):
    figure = plots.grid(dataset.sample(4, balanced=True))
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == ["benign", "benign", "malignant", "malignant"]
    assert figure.get_supxlabel() == "Synthetic test image"


def test_a_grid_of_predictions_says_what_each_was_seen_as_and_with_what_score_all_in_the_figure(evaluation):
    figure = plots.grid(evaluation.table.loc[[0, 2]])
    assert [ax.get_title() for ax in figure.axes[:2]] == ["benign 1.00", "benign\npredicted malignant 0.70"]
    assert all_inside(figure, [ax.title for ax in figure.axes[:2]])


def all_inside(figure, texts):
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    return min(box.y0 for box in boxes) >= 0 and max(box.y1 for box in boxes) <= figure.bbox.height


@pytest.mark.parametrize("draw", [plots.roc, plots.precision_recall, plots.reliability])
def test_title_and_legend_of_a_curve_are_not_cut_off(draw, evaluation):
    ax = draw(evaluation)
    assert all_inside(ax.figure, [ax.title, *ax.get_legend().get_texts()])


def test_the_roc_plot_says_n_area_and_interval(evaluation):
    ax = plots.roc(evaluation)
    low, high = evaluation.interval("roc_auc")
    assert "(n = 24)" in ax.get_title()
    assert (
        f"{evaluation.metric('roc_auc'):.3f} [{low:.3f}, {high:.3f}]"
        in ax.get_legend().get_texts()[0].get_text()
    )


def test_missing_metadata_values_are_shown(dataset):
    names = [text.get_text() for text in plots.distribution(dataset, "sex").get_xticklabels()]
    assert names == ["male", "missing"]
    with pytest.raises(ValueError, match="no column 'age'"):
        plots.distribution(dataset, "age")


def test_long_values_are_cut_short(dataset):
    names = [text.get_text() for text in plots.distribution(dataset, "path").get_xticklabels()]
    assert all(len(name) == 30 and name.endswith("…") for name in names)


def test_images_of_seven_labels_are_counted_without_one_number_over_another():
    table = pd.DataFrame(
        {"path": [*"abcdefghijklmn"], "label": [*"stuvwxy"] * 2, "group": [*"abcdefghijklmn"]}
    )
    ax = plots.class_balance(ImageDataset(table))
    ax.figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 14 and all(low.y1 <= high.y0 for low, high in pairwise(boxes))


def test_one_image_is_counted_in_the_singular(dataset):
    assert plots.class_balance(dataset.sample(1)).get_title() == "1 image by label"


def test_measures_are_small_multiples_of_what_varies_with_a_row_a_label(dataset):
    figure = plots.measures(dataset.measure())
    titles = [ax.get_title().split(":")[0] for ax in figure.axes if ax.axison]
    assert {"brightness", "sharpness"} <= set(titles) and not {"width", "format", "sha256"} & set(titles)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == dataset.labels
    assert plots.measures(dataset, ["sex"])  # nothing to draw is no error


def test_of_a_measure_that_few_images_have_the_share_of_them_is_shown_of_others_the_middle_half():
    table = pd.DataFrame({"path": [*map(str, range(40))], "label": ["a", "b"] * 20, "group": range(40)})
    table = table.assign(ruler=[0, 1] * 5 + [0] * 30, size=np.repeat(range(20), 2))
    size, ruler = plots.measures(ImageDataset(table), ["size", "ruler"]).axes[:2]
    assert [bar.get_width() for bar in ruler.patches] == [0, 0.25] and ruler.get_title().endswith(
        "share above 0"
    )
    assert [(bar.get_x(), bar.get_width()) for bar in size.patches] == [(4.75, 9.5)] * 2


def test_missing_shares_stand_beside_their_column_a_place_a_label(dataset):
    shares = associations.missing(dataset)
    ax = plots.missing(shares)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["sex"]
    assert ax.get_title().endswith(f"{len(shares) - 1} of {len(shares)} columns are complete")
    assert ax.patches[0].get_width() == pytest.approx(dataset.table["sex"].isna().mean())
    places = [line.get_ydata()[0] for line in ax.lines]
    assert len({*places}) == len(dataset.labels) and np.mean(places) == pytest.approx(0)
    assert plots.missing(shares[shares["all"] == 0])  # nothing to draw is no error


def test_examples_have_a_row_a_value_the_frequent_first(dataset):
    table = dataset.table.assign(dx=["nv"] * 20 + ["wart"] * 4)
    figure = plots.examples(replace(dataset, table=table), "dx", each=5)
    rows = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
    assert rows == ["nv\nbenign/malignant, 20", "wart\nmalignant, 4"]
    assert sum(len(ax.images) for ax in figure.axes) == 5 + 4
    assert figure.get_supxlabel() == "Synthetic test image"


def test_associations_are_points_on_their_column_with_intervals():
    table = pd.DataFrame(
        {
            "column": ["dx", "age", "width"],
            "role": ["diagnosis", "patient", "frame"],
            "of": "malignant",
            "auc": [1.0, 0.7, np.nan],
            "low": [1.0, 0.6, np.nan],
            "high": [1.0, 0.8, np.nan],
        }
    )
    ax = plots.associations(table)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["dx", "age"]
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines}
    assert points["diagnosis"] == (1, 0) and points["patient"] == (0.7, 1)
    assert ax.get_title() == "What tells malignant"
    both = plots.associations(table.assign(of=["a", "b", "b"]))
    assert [text.get_text() for text in both.get_yticklabels()] == ["dx (a)", "age (b)"]


def test_pairs_say_distance_labels_and_lesions(dataset):
    pairs = dataset.measure().near_duplicates(64).head(4)
    figure = plots.pairs(pairs)
    titles = [ax.get_title() for ax in figure.axes]
    first = pairs.iloc[0]
    assert titles[0] == f"{first['label_a']}\n{first['distance']} bits apart"
    assert titles[1].startswith(f"{first['label_b']}\n") and titles[1].endswith("lesion")
    assert sum(len(ax.images) for ax in figure.axes) == 8


def test_a_saved_figure_is_closed(dataset, tmp_path):
    assert plots.save(plots.class_balance(dataset).figure, tmp_path / "a.png").stat().st_size > 1000
    assert not plt.get_fignums()


def test_slices_stand_on_an_axis_that_makes_no_difference_look_larger_and_count_the_positive_lesions(
    evaluation,
):
    table = evaluation.table.assign(site=["arm", "back"] * 12)
    found = comparison.slices(replace(evaluation, table=table), "site")
    ax = plots.slices(found.assign(value=[0.86, 0.9]))
    assert ax.get_xlim() == (0.5, 1)
    assert ax.get_yticklabels()[0].get_text().endswith(" positive")
    assert plots.slices(found.assign(value=[0.3, 0.9])).get_xlim() == (0, 1)


def test_the_models_threshold_stands_on_the_axis_of_risks_as_a_risk(evaluation):
    assert len(plots.net_benefit(evaluation, 0.05).lines) == 3
    ax = plots.net_benefit(evaluation.at(0.5), 0.05)
    assert ax.lines[3].get_xdata()[0] == pytest.approx(0.05)  # of as many benign as malignant ones
    assert ax.get_legend().get_texts()[3].get_text() == "model's threshold: score 0.500, risk 0.050"


ODD = [
    "$x_$",
    "_hidden",
    "$\\frac$ 5 % of $1",
    "line\rbreak\tand\x07bell",
    "n" * 300,
    "\udcff.jpg",
    "a\\$b$c",
]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("odd", ODD)
def test_every_plot_draws_labels_and_values_as_they_stand(odd, folder, tmp_path):
    table = ImageDataset.from_folder(folder).table
    table = table.assign(label=table["label"].replace("malignant", odd), attribution=odd, sex=[odd, "f"] * 12)
    dataset = ImageDataset(table.assign(size=np.linspace(0, 1, 24), **{odd: [odd, "b", "c"] * 8}))
    labels = dataset.table["label"]
    scores = np.random.default_rng(0).uniform(size=24)
    evaluation = Evaluation.from_scores(labels, np.stack([1 - scores, scores], 1), classes=dataset.labels)
    told = associations.rank(dataset)
    pairs = pd.DataFrame(
        {"path_a": dataset.paths[:1], "path_b": dataset.paths[1:2], "label_a": odd, "label_b": odd}
    )
    drawn = [
        plots.class_balance(dataset),
        plots.distribution(dataset, "sex"),
        plots.distribution(dataset, odd),
        plots.measures(dataset, ["size"]),
        plots.missing(pd.DataFrame({"all": [0.5], odd: [0.5]}, index=[odd])),
        plots.examples(dataset, odd),
        plots.associations(told),
        plots.pairs(pairs.assign(distance=1, crosses_group=True)),
        plots.grid(dataset.sample(2)),
        plots.grid(dataset.sample(2), titles=[odd, odd]),
        plots.augmented(augment_dataset(dataset, iaa.Fliplr(1)), 1, 1),
        *(plot(evaluation) for plot in (plots.roc, plots.precision_recall, plots.confusion, plots.scores)),
        plots.reliability(evaluation),
    ]
    for each in drawn:
        figure = each if isinstance(each, Figure) else each.figure
        plots.save(figure, tmp_path / "x.png")  # a formula that is none would fail here
    legend = [text.get_text() for text in drawn[1].get_legend().get_texts()]
    assert len(legend) == 2 and all("(n = 12)" in text for text in legend)
    plain = plots.literal(odd)
    assert not is_math_text(plain) and len(plain) < 70 and plain.replace("\n", " ").isprintable()


def is_math_text(text):
    dollars = text.count("$") - text.count("\\$")
    return dollars > 0 and dollars % 2 == 0


def test_a_map_has_a_point_for_each_image_in_the_color_of_its_value(dataset):
    table = dataset.table.assign(age=np.arange(24.0), many=[*"abcdefgh"] * 3, sex=[*"fm"] * 11 + [None] * 2)
    dataset, features = replace(dataset, table=table), np.random.default_rng(0).normal(size=(24, 4))
    ax = plots.map(dataset, features)
    shades = {"benign": "#0072B2", "malignant": "#D55E00"}
    drawn = ax.collections[0]
    order = np.random.default_rng(0).permutation(24)
    colors = [matplotlib.colors.to_hex(shade).upper() for shade in drawn.get_facecolors()]
    assert colors == [shades[label] for label in table["label"].iloc[order]]
    assert np.array_equal(drawn.get_offsets(), featuremap.places(dataset, features)[order])
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["benign (n = 12)", "malignant (n = 12)"]
    names = [text.get_text() for text in plots.map(dataset, features, "sex").get_legend().get_texts()]
    assert names == ["f (n = 11)", "m (n = 11)", "(missing) (n = 2)"]
    names = [text.get_text() for text in plots.map(dataset, features, "many").get_legend().get_texts()]
    assert len(names) == 7 and names[-1] == "(rare) (n = 6)"
    table.loc[0, "age"] = np.nan
    ax = plots.map(dataset, features, "age", plt.figure(layout="constrained").subplots())
    assert ax.get_legend() is None and ax.figure.axes[1].get_ylabel() == "age"
    assert [len(each.get_offsets()) for each in ax.collections] == [1, 24]  # one over the other
    with pytest.raises(ValueError, match="no column 'agee'.*did you mean age"):
        plots.map(dataset, features, "agee")
    with pytest.raises(ValueError, match="a map needs 10 images or more, not 3"):
        plots.map(dataset.where(np.arange(24) < 3), features[:3])
