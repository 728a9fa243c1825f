"""The bundle as MLflow calls it: rows of images as base64 text in, a label and scores a row out.

mlflow_model.py puts this file and the bundle into a model's folder; MLflow runs it when it loads the model. The work
is done by the score.py of the bundle, so that MLflow and the web service agree.
"""

import importlib.util
from pathlib import Path

import mlflow
import pandas as pd

NOT_TEXT = "the image: it is not base64 text"


class Scorer(mlflow.pyfunc.PythonModel):
    """Scores images with a bundle."""

    def load_context(self, context):
        """Load the bundle; RuntimeError if a file is not the one that it was built with."""
        path = Path(context.artifacts["bundle"]) / "score.py"
        # not `import score`: several models may be loaded in one process
        spec = importlib.util.spec_from_file_location(f"score_{id(self)}", path)
        self.score = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.score)
        self.score.init()

    def predict(self, model_input: pd.DataFrame) -> pd.DataFrame:
        """Return a row per image: its label, why it was rejected (None if it was not), and a score per class."""
        labels, images = self.score.metadata["labels"], [*model_input["image_in_base64"]]
        rows, columns = [], ["label", "error", *(f"score_{label}" for label in labels)]
        for start in range(0, len(images), self.score.CHUNK):
            chunk = images[start : start + self.score.CHUNK]
            scored = iter(self.score.predict([each for each in chunk if isinstance(each, str)]))
            for image in chunk:
                prediction = next(scored) if isinstance(image, str) else {"error": NOT_TEXT}
                scores = prediction.get("scores", {})
                rows.append([prediction.get("label"), prediction.get("error"), *map(scores.get, labels)])
        # None stays None, which is valid JSON; NaN is not
        return pd.DataFrame(rows, columns=columns, dtype=object)


mlflow.models.set_model(Scorer())
