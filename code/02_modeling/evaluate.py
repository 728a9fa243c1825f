"""Evaluate a trained model on its test images: the third step of the training pipeline.

    python code/02_modeling/evaluate.py
    python code/02_modeling/evaluate.py --trained outputs --outputs outputs/evaluated

It reads split/ and model/ in --trained, which must be of one run, and writes what 02_evaluate writes: the predictions,
the report, the model's card and its metrics. Where --outputs is another folder, split and model are copied there, too.
"""

import shutil

from isicvision import ImageClassifier, Outputs, evaluate, record, write_results
from steps import OUTPUTS, command_line, enter, plain_errors, require_images


def evaluate_model(trained, outputs):
    """Evaluate the model in the Outputs `trained` into `outputs`; return the evaluation."""
    require_images(record.earlier_parts(trained.split))
    parts = record.load_parts(trained.require(trained.split), trained.require(trained.model))
    if outputs.folder != trained.folder:
        for name in ("split", "model"):
            shutil.copytree(trained.folder / name, outputs.folder / name, dirs_exist_ok=True)
    model = ImageClassifier.load(outputs.model)
    evaluation = evaluate(model, parts["test"])
    evaluation.save(outputs.predictions)
    write_results(evaluation, model, parts, outputs)
    return evaluation


def main():
    """Do what the command line says."""
    given = command_line(
        __doc__,
        data="folder where the paths in the tables start, if prepare.py wrote them so",
        trained="folder with split/ and model/ (default: outputs)",
        outputs="folder of the results (default: that of --trained)",
    ).parse_args()
    with plain_errors():
        trained = given.trained or OUTPUTS
        outputs = given.outputs or trained
        enter(given.data, outputs)
        evaluation = evaluate_model(Outputs(trained), Outputs(outputs))
    words = f"ROC AUC {evaluation.text('roc_auc')}"
    if len(evaluation.classes) == 2:
        words += f", sensitivity {evaluation.text('recall')}, specificity {evaluation.text('specificity')}"
    print(f"{len(evaluation.table):,} test images: {words}")


if __name__ == "__main__":
    main()
