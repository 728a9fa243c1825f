"""Decide whether a new model may take the place of the registered one: the fourth step of the training pipeline.

    python code/02_modeling/gate.py
    python code/02_modeling/gate.py --evaluated outputs/evaluated --registered outputs/registry/isicvision/1

A model passes if all of this holds:

1. Split, model, run.json, predictions and metrics in --evaluated are of one run, and no lesion is in two parts of the
   split. The gate scores the test images itself, and refuses predictions or metrics that do not agree with its own.
2. The model has a card with more than headings.
3. Neither it nor the registered model was trained on a test image (compared by its bytes), or on another of its lesion.
4. It is not worse than the registered one on these test images: on all of them, and on those confirmed alike (see
   `decisions.populations`). Images with fewer than 5 lesions of a label are not compared: chance would refuse too
   many equal models. Without a registered model there is nothing to compare with.

*Not worse*: both models score the same test images. A paired bootstrap over lesions gives the 95 % interval of the
difference in ROC AUC, new minus registered. The new model is worse if the whole interval lies below 0.

For each population this is a one-sided test at 2.5 %. There are two populations, so of models that are just as good the
gate refuses at most 5 % (Bonferroni).

Passing does not prove that a model is as good: the fewer the test images, the larger a loss they may miss. So each
comparison says how much worse a model must be to be refused in four of five cases: `noticeable`, 1.96 + 0.84 standard
errors. It is null if both models give the same scores, or if it would be above 1. All test images together cannot tell
where they would notice only a loss above 0.1, or show fewer than 5 lesions of a label. Then a model is refused, too, if
its ROC AUC is lower: in doubt the registered one stays.

The rule has no margin of non-inferiority. A margin that lets equal models pass would be about as large as `noticeable`,
and would depend on the number of test images. tests/bench/bench_gate.py measures the rule.

The decision goes to decision.json in --outputs. The script ends with status 0 if the model passed, 1 if it was refused,
2 if there was an error.
"""

import json
import math
import re
import sys
from dataclasses import asdict, dataclass, field

import numpy as np

from isicvision import (
    Evaluation,
    ImageClassifier,
    Outputs,
    comparison,
    decisions,
    evaluate,
    record,
    splitting,
)
from isicvision.data.folders import some
from isicvision.evaluation import intervals
from isicvision.evaluation.predictions import PREFIX
from isicvision.files import read_json, replacing, require, sha256
from isicvision.metrics import METRICS
from steps import OUTPUTS, REGISTERED, command_line, enter, plain_errors, require_images, said

FEWEST = 5
"""With fewer lesions of a label the interval is too narrow: tests/bench/bench_few.py measures it."""
ROUNDING = 0.005
"""Scores may differ by so much between machines, or with 16-bit arithmetic."""
LARGE = 0.1
"""A loss in ROC AUC: test images that would notice only a larger one cannot tell whether a model is worse."""
TRAIN = "code/02_modeling/train.py"
FOUR_OF_FIVE = (1.96 + 0.84) / (2 * 1.96)
"""Of the width of a 95 % interval: the difference that makes it lie wholly below 0 in four of five cases."""


@dataclass
class Decision:
    """Whether a model passed, why, and what was compared: the content of decision.json."""

    passed: bool = True
    reasons: list = field(default_factory=list)
    comparison: dict = field(default_factory=dict)
    compared: dict = field(default_factory=dict)

    def refuse(self, reason):
        """Note a reason against the model."""
        self.passed = False
        self.reasons.append(reason)


def compare(new, registered):
    """Compare two evaluations of the same images: a dict of the figures of each population, by its name."""
    found, others = {}, decisions.populations(registered)
    for name, each in decisions.populations(new).items():
        row = comparison.compare(each, others[name]).rename({"first": "new", "second": "registered"})
        enough = intervals.lesions(each, "roc_auc") >= FEWEST
        noticeable = FOUR_OF_FIVE * (row["high"] - row["low"])
        in_doubt = name == "all" and noticeable > LARGE and row["difference"] < 0
        found[name] = {
            "images": len(each.table),
            "lesions": int(each.table["group"].nunique()),
            **{key: None if math.isnan(row[key]) else round(float(row[key]), 6) for key in row.index[:5]},
            "noticeable": noticeable if enough and 0 < noticeable <= 1 else None,
            "not_worse": bool(row["high"] >= 0 and not in_doubt) if enough else None,
        }
    return found


def words(name, found):
    """Say what a comparison of one population found: str."""
    count = f"{found['images']:,} test images"
    which = f"all {count}" if name == "all" else f"{count} confirmed alike"
    start = f"{which}, {found['lesions']:,} lesions: "
    if found["low"] is None and name == "all":
        return f"{start}the ROC AUC is not defined, so the models cannot be compared"
    if found["not_worse"] is None:
        return f"{start}too few lesions of a label to say, {FEWEST} of each are needed"
    if found["low"] == found["high"] == 0:
        return f"{start}not worse, both models give the same scores, ROC AUC {found['new']:.3f}"
    verdict = "not worse" if found["not_worse"] else "worse" if found["high"] < 0 else "perhaps worse"
    limit = "so few lesions notice no loss in four of five cases"
    if found["noticeable"] is not None:
        limit = f"a model worse by {found['noticeable']:.3f} would be refused in four of five cases"
    return (
        f"{start}{verdict}, ROC AUC {found['new']:.3f} against {found['registered']:.3f}, difference "
        f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]; {limit}"
    )


def stops(name, found):
    """Say whether the comparison of one population refuses a model; where all images cannot tell, a loss does: bool."""
    if found["not_worse"] is None and name == "all":
        return found["difference"] is None or found["difference"] < 0
    return found["not_worse"] is False


def identity(model):
    """Return what identifies a saved model: dict of the checksum of its model.json, which holds those of its files."""
    described = read_json(model / "model.json")
    training = described["training"] or {}
    return {
        "sha256": sha256(model / "model.json"),
        "finished": training.get("finished"),
        "training_manifest": training.get("manifest"),
    }


def says_something(card):
    """Say whether a card is a text with more than headings and comments: bool."""
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return bool(re.sub(r"<!--.*?-->|^#[^\n]*", "", text, flags=re.DOTALL | re.MULTILINE).strip())


def leak(model, test, which):
    """Say that a model was trained on some of the test images or their lesions: str, or None."""
    if model.seen is None:
        return f"the {which} model does not say what it was trained on (no seen.safetensors)"
    seen = splitting.seen(test, model.seen)
    if count := int(seen.sum()):
        hint = "; prepare.py --registered keeps its split" if which == "registered" else ""
        names = some(test.table["path"][seen].tolist(), 3) + ", …" * (count > 3)
        among = f"{count:,} of the {len(test):,} test images, or their lesions"
        return f"the {which} model was trained on {among} ({names}){hint}"
    return None


def own_run(model):
    """Return run.json in the folder of a saved model; ValueError unless it is of this model and of a whole split."""
    run, described = record.read(require(model / "run.json", TRAIN)), read_json(model / "model.json")
    training = {**(described.pop("training") or {}), "history": run.get("history")}
    for name in ("format", "versions", "sha256"):
        described.pop(name, None)
    about = {name: value for name, value in (run.get("model") or {}).items() if name != "versions"}
    if about != described or {**run["training"], "history": run.get("history")} != training:
        raise ValueError(f"{model / 'run.json'} is of another model than model.json: train it again")
    for name in record.PARTS:
        if not (run["split"].get(name) or {}).get("manifest"):
            raise ValueError(
                f"{model / 'run.json'} does not say which images were the {name} part: train it again"
            )
    return run


def disagreement(made, saved, metrics):
    """Say how predictions or the metrics in run.json differ from `made`, the gate's own evaluation: str, or None."""
    columns = ["path", "label", "group", *(PREFIX + name for name in made.classes)]
    same = (saved.classes, saved.positive, saved.threshold) == (made.classes, made.positive, made.threshold)
    if same:
        ours, theirs = (each.table[columns].sort_values("path", ignore_index=True) for each in (made, saved))
        same = ours[columns[:3]].equals(theirs[columns[:3]])
        same = same and np.allclose(ours[columns[3:]], theirs[columns[3:]], rtol=0, atol=ROUNDING)
    if not same:
        return "the predictions are not those of the model for the test images: run evaluate.py again"
    for name in METRICS:
        known = (metrics.get(name) or {}).get("value")
        if not np.isclose(math.nan if known is None else known, saved.metric(name), equal_nan=True):
            return f"the {name} in run.json is not that of the predictions: run evaluate.py again"
    return None


def decide(evaluated, registered=None):
    """Decide about the model in the Outputs `evaluated`; `registered` is the folder of a registered one, or None."""
    decision = Decision()
    model = ImageClassifier.load(evaluated.require(evaluated.model))
    decision.compared["new"] = identity(evaluated.model)
    card = evaluated.model / "README.md"
    if not says_something(card):
        decision.refuse(f"the model has no card: {card} is missing or empty; run evaluate.py")
    saved = Evaluation.load(evaluated.require(evaluated.predictions))
    require_images(record.earlier_parts(evaluated.split))
    try:
        run = own_run(evaluated.model)
        test = record.load_parts(evaluated.require(evaluated.split), evaluated.model)["test"]
        record.require_evaluated(saved, evaluated.model)
    except ValueError as error:
        decision.refuse(said(error))
        return decision
    if reason := leak(model, test, "new"):
        decision.refuse(reason)
    made = evaluate(model, test)
    if reason := disagreement(made, saved, run["metrics"]):
        decision.refuse(reason)
        return decision
    decision.compared |= {"test_manifest": test.manifest(), "predictions": record.digest(saved)}
    if registered is None:
        decision.reasons.append("no registered model: there is nothing to compare with")
    else:
        against(decision, made, model, test, Outputs(registered / REGISTERED))
    return decision


def against(decision, evaluation, model, test, registered):
    """Compare the evaluation of a new model with that of a registered one, and add what is found to the decision."""
    old = ImageClassifier.load(require(registered.model, "code/02_modeling/register.py"))
    decision.compared["registered"] = identity(registered.model)
    if old.labels != model.labels or old.positive != model.positive:
        labels = (f"{', '.join(each.labels)}, positive {each.positive}" for each in (model, old))
        differ = "the labels differ: {} here, {} in the registered model".format(*labels)
        decision.refuse(
            f"{differ}; register it apart: other --outputs, or in Azure another name in pipeline.yml"
        )
        return
    if reason := leak(old, test, "registered"):
        decision.refuse(reason)
        return
    decision.comparison = compare(evaluation, evaluate(old, test, evaluation.positive))
    for name, found in decision.comparison.items():
        (decision.refuse if stops(name, found) else decision.reasons.append)(words(name, found))


def main():
    """Do what the command line says."""
    given = command_line(
        __doc__,
        data="folder where the paths in the tables start, if prepare.py wrote them so",
        evaluated="folder with split/, model/ and evaluation/ (default: outputs)",
        registered="folder of the registered model (default: none)",
        outputs="folder of decision.json (default: that of --evaluated)",
    ).parse_args()
    with plain_errors():
        evaluated = given.evaluated or OUTPUTS
        outputs = given.outputs or evaluated
        enter(given.data, outputs)
        decision = decide(Outputs(evaluated), given.registered)
        with replacing(outputs / "decision.json") as part:
            part.write_text(json.dumps(asdict(decision), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print("passed" if decision.passed else "refused")
    for reason in decision.reasons:
        print(f"  {reason}")
    sys.exit(not decision.passed)


if __name__ == "__main__":
    main()
