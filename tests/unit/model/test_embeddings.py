import builtins
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from isicvision import ImageClassifier, ImageDataset, audit, build_bundle, cards, evaluate, saliency

LABELS = ["benign", "malignant"]
ENCODER = {"name": "encoder-b", "license": "MIT", "source": "https://example.org/encoder-b"}
REGRESSION = LogisticRegression(C=0.01, max_iter=1000)


@pytest.fixture(scope="module")
def parts(folder):
    return ImageDataset.from_folder(folder).split(0.5, 0.25, 0.25)


@pytest.fixture(scope="module")
def of_images(parts):
    """A model of EfficientNet-Lite0's features, fitted."""
    model = ImageClassifier("efficientnet_lite0", LABELS, image_size=64, classifier=REGRESSION)
    model.fit(parts[0])
    return model


@pytest.fixture(scope="module")
def stored(parts, of_images):
    """The same features of all images as a table."""
    paths = [path for part in parts for path in part.paths]
    features = of_images.featurize(paths)
    table = pd.DataFrame(features, columns=[f"f{n}" for n in range(features.shape[1])])
    table.insert(0, "isic_id", [Path(path).stem for path in paths])
    table.attrs["encoder"] = ENCODER
    return table


def small(images=4, **columns):
    """A table of two features of the images p00, p01, …"""
    names = [f"p{number:02d}" for number in range(images)]
    values = np.arange(2.0 * images).reshape(images, 2)
    return pd.DataFrame(values, columns=["a", "b"]).assign(image=names, **columns)


def made(features, encoder=ENCODER, **options):
    return ImageClassifier(
        labels=LABELS, features=features, encoder=encoder, **{"classifier": REGRESSION} | options
    )


def test_stored_features_give_the_figures_of_the_network_whatever_holds_them(
    parts, of_images, stored, tmp_path
):
    train, validation, test = parts
    of_images.finish(train, validation)
    expected = evaluate(of_images, test).metrics()
    stored.to_parquet(tmp_path / "e.parquet")
    stored.to_csv(tmp_path / "e.csv", index=False)
    vectors = [*stored.drop(columns="isic_id").to_numpy()]
    lists = pd.DataFrame({"embedding": vectors}, index=stored["isic_id"])
    for features, encoder in (
        (tmp_path / "e.parquet", None),
        (tmp_path / "e.csv", ENCODER),
        (lists, ENCODER),
    ):
        model = made(features, encoder)
        model.fit(train)
        model.finish(train, validation)
        assert np.abs(model.predict_proba(test) - of_images.predict_proba(test)).max() <= 1e-6
        assert np.allclose(evaluate(model, test).metrics(), expected, atol=1e-6, equal_nan=True)
        assert model.metadata["decision"]["threshold"] == pytest.approx(
            of_images.metadata["decision"]["threshold"], abs=1e-6
        )
        assert np.allclose(model.featurize(test), of_images.featurize(test), atol=1e-6)


def test_a_saved_model_names_the_encoder_with_license_and_source_and_asks_for_features(
    parts, stored, tmp_path
):
    model = made(stored, None)
    model.fit(parts[0])
    folder = model.save(tmp_path / "model")
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert about["encoder"] == ENCODER and about["backbone"] == "encoder-b"
    assert (about["weights_license"], about["weights_source"]) == ("MIT", ENCODER["source"])
    card = cards.write_model_card(folder).read_text(encoding="utf-8")
    assert "made beforehand by encoder-b" in card and "license: MIT" in card and ENCODER["source"] in card
    assert "stored features" in repr(model) and " px" not in repr(model)
    again = ImageClassifier.load(folder, features=stored)
    assert np.array_equal(again.predict_proba(parts[2]), model.predict_proba(parts[2]))
    with pytest.raises(ValueError, match="features= is needed: the model works on those that encoder-b made"):
        ImageClassifier.load(folder)
    other = stored.copy()
    other.attrs["encoder"] = ENCODER | {"name": "encoder-c"}
    with pytest.raises(ValueError, match="holds features of encoder-c, not of encoder-b"):
        ImageClassifier.load(folder, features=other)
    with pytest.raises(ValueError, match="fitted to 1280 features, not 2"):
        ImageClassifier.load(folder, features=small())


def test_a_model_of_images_takes_no_features(of_images, stored, tmp_path):
    folder = of_images.save(tmp_path / "model")
    with pytest.raises(ValueError, match="holds features of encoder-b, not of efficientnet_lite0"):
        ImageClassifier.load(folder, features=stored)


def test_what_needs_the_encoder_says_so(parts, stored, tmp_path):
    train, validation, test = parts
    model = made(stored, None)
    model.fit(train)
    image = np.zeros((1, 64, 64, 3), np.uint8)
    for call in (
        lambda: build_bundle(model, tmp_path / "bundle"),
        lambda: model.to_onnx(tmp_path / "model.onnx"),
        lambda: model.scores(image),
        lambda: model.summary(),
        lambda: audit.shortcuts(model, test),
    ):
        with pytest.raises(
            ValueError, match="works on stored features, not on images: .*bundles need the encoder"
        ):
            call()
    assert not [*tmp_path.iterdir()]
    with pytest.raises(ValueError, match="stored features have no outlier limit"):
        model.fit_outlier_limit(train, validation)
    with pytest.raises(ValueError, match="saliency needs a fine-tuned network"):
        saliency.grad_cam(model, image)
    with pytest.raises(ValueError, match="only networks are calibrated"):
        model.calibrate(validation)
    with pytest.raises(ValueError, match="image_size: encoder-b takes"):
        made(stored, None, image_size=96)
    with pytest.raises(ValueError, match="classifier is a classifier of scikit-learn"):
        made(stored, None, classifier=None)


def test_extra_ids_do_no_harm_and_missing_ones_are_named(parts):
    table = small(23)
    with pytest.raises(ValueError, match=r"no features of 1 of 24 images; encoder-b makes them:\n.*p23.jpg"):
        made(table).predict_proba([path for part in parts for path in part.paths])
    model = made(small(200))
    model.fit(parts[0])
    assert model.predict_proba(parts[2].paths * 2).shape == (2 * len(parts[2]), 2)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (small(label="benign"), "columns of floats only; drop label"),
        (small(age=[50, 60, 70, 80]), "columns of floats only; drop age"),
        (small().astype({"a": str}), "columns of floats only; drop a"),
        (small()[["image"]], "columns of floats only"),
        (small().assign(a=[1, np.nan, 2, 3]), "the features of p01 are not finite"),
        (small().assign(b=[1, 2, 3, np.inf]), "the features of p03 are not finite"),
        (small().drop(columns="image"), "name the image of each row"),
        (small().assign(image=["p00", None, "p02", "p03"]), "name the image of each row"),
        (
            pd.DataFrame({"image": ["p00", "p01"], "e": [[0.5, 1.5], [0.5]]}),
            "p01 has no list of features, or not as many as the others",
        ),
        (pd.DataFrame({"image": ["p00", "p01"], "e": [[0.5, 1.5], None]}), "p01 has no list of features"),
        (pd.DataFrame({"image": ["p00", "p01"], "e": [[[0.5]], [[1.5]]]}), "p00 has no list of features"),
        (pd.DataFrame({"image": [], "e": []}, dtype=object), "columns of floats only; drop e"),
    ],
)
def test_tables_that_hold_anything_else_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        made(table)


@pytest.mark.parametrize("second", ["p00", "p00.jpg", "benign/p00"])
def test_an_image_with_two_rows_of_features_is_named(parts, second):
    table = small(24).replace({"image": {"p23": second}})
    paths = [path for part in parts for path in part.paths if "p23" not in path]
    with pytest.raises(ValueError, match=f"several rows of features: p00, {second}"):
        made(table).predict_proba(paths)


def test_license_and_source_of_the_encoder_are_required():
    none, known = "name, license, source", {"name": "encoder-b", "source": "x"}
    for given, lack in (
        (None, none),
        ("encoder-b", none),
        ([*ENCODER], none),
        (known, "license"),
        (known | {"license": np.nan}, "license"),
        (known | {"license": " "}, "license"),
    ):
        with pytest.raises(ValueError, match=f"lacks the encoder's {lack}: encoder= is a dict of them"):
            made(small(), given)


def test_files_that_cannot_be_read_are_named(tmp_path, monkeypatch):
    (tmp_path / "e.parquet").write_text("image,a\np00,0.5\n", encoding="utf-8")
    for name in ("e.parquet", "missing.parquet", "missing.csv"):
        with pytest.raises(ValueError, match=rf"{name} cannot be read .*\.csv file, or a parquet file"):
            made(tmp_path / name)
    small().to_parquet(tmp_path / "e.parquet")
    whole = builtins.__import__

    def without(name, *rest, **options):
        if name.startswith("pyarrow"):
            raise ImportError("no pyarrow")
        return whole(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install -e \"\.\[embeddings\]\""):
        made(tmp_path / "e.parquet")


def test_images_need_not_be_here(tmp_path):
    """Their ids are enough, and two of them are not taken for one."""
    names = [f"case{number}" for number in range(8)]
    table = pd.DataFrame({"path": names, "label": LABELS * 4, "group": names})
    train, test = (ImageDataset(each.reset_index(drop=True)) for each in (table[:6], table[6:]))
    features = pd.DataFrame({"image": names, "a": np.arange(8.0) % 2})
    model = made(features)
    model.fit(train)
    assert evaluate(model, test).metric("roc_auc") == 1  # without a warning that they were trained on
    with pytest.warns(UserWarning, match="6 images of the 6"):
        evaluate(model, train)


def test_numbers_name_images_in_a_column_as_they_do_in_a_file(tmp_path):
    """A number that stands in a CSV file matches its image; a DataFrame and a parquet file hold 12 or 12.0 for it."""
    names = [*range(12, 20)]
    table = pd.DataFrame(
        {"path": [f"x/{n}.jpg" for n in names], "label": LABELS * 4, "group": [*map(str, names)]}
    )
    features = pd.DataFrame({"image": names, "a": np.arange(8.0) % 2})
    features.to_csv(tmp_path / "E.CSV", index=False)
    features.to_parquet(tmp_path / "e.parquet")
    floats = features.assign(image=features["image"].astype(float))
    for given in (tmp_path / "E.CSV", features, tmp_path / "e.parquet", floats):
        model = made(given)
        model.fit(ImageDataset(table))
        assert model.predict_proba(ImageDataset(table)).argmax(axis=1).tolist() == [0, 1] * 4
    with pytest.raises(ValueError, match="name the image of each row"):
        made(features.drop(columns="image"))  # an index of numbers names nothing


def test_the_order_of_columns_makes_no_difference(parts, stored, tmp_path):
    model = ImageClassifier(labels=LABELS, features=stored, classifier=REGRESSION)
    model.fit(parts[0])
    turned = ImageClassifier.load(model.save(tmp_path / "model"), features=stored[[*stored][::-1]])
    assert np.array_equal(turned.predict_proba(parts[2]), model.predict_proba(parts[2]))


def test_columns_of_the_archive_are_no_features(stored):
    with pytest.raises(ValueError, match="columns of floats only; drop age_approx"):
        ImageClassifier(labels=LABELS, features=stored.assign(age_approx=50.0), classifier=REGRESSION)


def test_a_model_keeps_the_features_that_it_was_given(parts, stored):
    table = stored.copy()
    table.attrs = stored.attrs
    model = ImageClassifier(labels=LABELS, features=table, classifier=REGRESSION)
    model.fit(parts[0])
    before = model.predict_proba(parts[2])
    table.iloc[:, 1:] = 0
    assert np.array_equal(model.predict_proba(parts[2]), before)
