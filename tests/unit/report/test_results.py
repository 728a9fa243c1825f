import numpy as np

from isicvision import Evaluation, write_evaluation


def test_the_report_is_one_page_that_holds_everything(dataset, tmp_path):
    scores = np.linspace(0, 1, len(dataset))
    evaluation = Evaluation.from_scores(dataset.table["label"], scores, metadata=dataset.table)
    page = write_evaluation(
        evaluation, tmp_path / "new" / "report.html", "Title", ["A <b>note</b>"]
    ).read_text(encoding="utf-8")
    assert f"{evaluation.metric('roc_auc'):.3f}" in page and "data:image/png;base64," in page
    assert f"{evaluation.by_group().metric('brier'):.3f}" in page and page.index("per lesion") < page.index(
        "per image"
    )
    assert "A &lt;b&gt;note" in page and "http" not in page
    assert (
        page.count("too few lesions") == 4
    )  # both ends of the interval of partial_roc_auc, per lesion and image
