"""Which images the service refuses: strange ones of four kinds, blurred ones, and real ones that it never saw.

    python tests/bench/bench_refusal.py                  # trains the preset "fast" first: minutes
    python tests/bench/bench_refusal.py --model FOLDER   # of bench_camera.py, or trained on the same seven tenths

Everything goes through the bundle's own score.run, as JPEG files of 600x450 (the real ones as they are, 200x150). The
test images are of other lesions than those trained and calibrated on. ``ISIC`` are ten images of other cameras at
1022x767: real ones, yet not from where the training images came; ``PH2`` are images of another clinic, before and
after the limit is moved to 40 others of them, unlabeled.
"""

import argparse
import base64
import importlib.util
import json
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import strange
from bench_settings import REAL, dataset
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from isicvision import ImageClassifier, ImageDataset, build_bundle

PH2 = REAL.parent / "ph2"
REASONS = ("unlike", "blank", "blurred")


def entry(bundle):
    """Import the bundle's score.py as the server does, and return it, ready."""
    spec = importlib.util.spec_from_file_location("entry_module", bundle / "score.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.init()
    return module


def ask(module, files):
    """Score the bytes of files by JSON; return the predictions."""
    texts, predictions = [base64.b64encode(file).decode() for file in files], []
    for start in range(0, len(texts), 32):
        body = json.dumps({"images": texts[start : start + 32]})
        request = EnvironBuilder(method="POST", data=body, content_type="application/json")
        predictions += module.run(Request(request.get_environ())).get_json()["predictions"]
    return predictions


def table(module, kinds):
    """Tabulate what is refused of each kind, why, and the distances' least, median and greatest."""
    rows = []
    for kind, files in kinds.items():
        predictions = ask(module, files)
        errors = [prediction.get("error", "") for prediction in predictions]
        distances = [prediction["distance"] for prediction in predictions if "distance" in prediction]
        counts = {why: sum(why in error for error in errors) for why in REASONS}
        quantiles = np.quantile(distances, [0, 0.5, 1]).round(2) if distances else [np.nan] * 3
        rows.append(
            {"kind": kind, "images": len(files), "refused": f"{np.mean([*map(bool, errors)]):.1%}"}
            | counts
            | dict(zip(("least", "median", "greatest"), quantiles, strict=True))
        )
    return pd.DataFrame(rows).set_index("kind")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="a saved model; default: train one")
    parser.add_argument("--features", action="store_true", help="features + scikit-learn, no fine-tuning")
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    parser.add_argument("--count", type=int, default=200, help="images of each kind")
    options = parser.parse_args()
    if not REAL.is_dir():
        raise SystemExit(f"no real images: {REAL} is not there")
    images = dataset()
    train, validation, test = images.split(0.7, 0.1, 0.2, seed=options.seed)
    if options.model:
        model = ImageClassifier.load(options.model)
    elif options.features:
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000))
        train = train.sample(1500, balanced=True)
        model = ImageClassifier("efficientnet_lite0", images.labels, image_size=160, classifier=classifier)
        model.fit(train)
    else:
        model = ImageClassifier.from_preset("fast", images.labels)
        model.fit(train, progress=False)
    model.fit_outlier_limit(train, validation)

    real = [Path(path).read_bytes() for path in test.sample(min(1000, len(test)), balanced=True).paths]
    kinds = {"test images": real}
    kinds |= {kind: strange.images(kind, options.count, seed=7) for kind in strange.KINDS}
    for share in (0.01, 0.02, 0.04):
        kinds[f"blurred by {share:.0%}"] = [strange.blurred(each, share) for each in real[: options.count]]
    isic = [path.read_bytes() for path in sorted((REAL.parent / "isic_sample").rglob("*.jpg"))]
    kinds["ISIC"] = isic
    kinds["ISIC at 200x150"] = [strange.reduced(each, (200, 150)) for each in isic]
    elsewhere = ImageDataset.from_csv(PH2 / "metadata.csv", PH2 / "images") if PH2.is_dir() else None
    if elsewhere is not None:
        local, others = elsewhere.split(0.4, 0.6, seed=options.seed)
        kinds["PH2"] = [Path(path).read_bytes() for path in others.paths]
    with tempfile.TemporaryDirectory() as folder:
        print(f"{model.metadata['backbone']} of {len(train)} images, limit from {len(validation)}:")
        print(table(entry(build_bundle(model, Path(folder) / "bundle")), kinds).to_string())
        if elsewhere is not None:
            model.fit_outlier_limit(None, local)
            print(f"after {len(local)} unlabeled images of PH2:")
            print(table(entry(build_bundle(model, Path(folder) / "local")), kinds).to_string())


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    warnings.simplefilter("ignore")
    main()
