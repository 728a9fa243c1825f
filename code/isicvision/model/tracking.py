"""Log a training to TensorBoard or MLflow, in a local folder unless told otherwise."""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

FOLDER = "outputs/tracking"


@contextlib.contextmanager
def start(tracker: str | None, settings: dict) -> Iterator[Callable[[dict], object]]:
    """Open a log in TensorBoard or MLflow, and yield ``log(row)``, which takes a dict of an epoch's figures.

    Look at them with ``tensorboard --logdir outputs/tracking/tensorboard``, or ``mlflow ui --backend-store-uri
    sqlite:///outputs/tracking/mlflow.db`` (from the package mlflow, see docs/howto/a_better_model.md). MLflow goes to
    another server where MLFLOW_TRACKING_URI says so, as it does in Azure ML. The row has its ``epoch``, which is the
    step of its other figures. The settings are logged once, as the parameters of the run. Raises ValueError if there is
    no such tracker, ModuleNotFoundError if it is not installed (the message says how).
    """
    if tracker not in _TRACKERS:
        raise ValueError(f"tracker is {', '.join(map(repr, _TRACKERS))}, not {tracker!r}")
    with contextlib.ExitStack() as stack:
        try:
            log = stack.enter_context(_TRACKERS[tracker](settings))
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f'{tracker} is not installed ({error}): pip install -e ".[tracking]"', name=error.name
            ) from error
        yield log


@contextlib.contextmanager
def _tensorboard(settings):
    from torch.utils.tensorboard import SummaryWriter

    folder = Path(FOLDER) / "tensorboard"
    folder.mkdir(parents=True, exist_ok=True)
    last = max((int(run.name[4:]) for run in folder.glob("run-*") if run.name[4:].isdigit()), default=0)
    with SummaryWriter(folder / f"run-{last + 1:03d}") as writer:
        writer.add_text("settings", "\n\n".join(f"{name}: {value}" for name, value in settings.items()))

        def log(row):
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, row["epoch"])

        yield log


@contextlib.contextmanager
def _mlflow(settings):
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        folder = Path(FOLDER).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        if mlflow.get_experiment_by_name("isicvision") is None:
            mlflow.create_experiment("isicvision", (folder / "mlflow-artifacts").as_uri())
    mlflow.set_experiment("isicvision")
    with mlflow.start_run(nested=True):  # within a run of the caller's, if there is one
        mlflow.log_params(settings)

        def log(row):
            mlflow.log_metrics({name: value for name, value in row.items() if name != "epoch"}, row["epoch"])

        yield log


_TRACKERS: dict[str | None, Callable] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
    None: lambda _: contextlib.nullcontext(lambda row: None),
}
