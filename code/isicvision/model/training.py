"""The training loop: batches, precision, steps, and how a training stops and resumes.

Order, augmentation and dropout follow from the seed and the place in the training. So on a CPU the same seed gives the
same weights, whatever the workers, resumed or not.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import accelerate
import numpy as np
import pandas as pd
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast, broadcast_object_list, gather_object
from safetensors import SafetensorError
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from ..data.cache import Images
from ..errors import warn
from . import checkpoint, devices
from .history import History
from .inputs import Augment, Parts, forward, load, order_of, steps
from .network import Network, load_values, set_training
from .settings import Settings

TRIAL_STEPS = 50
"""Shorter trainings are not worth timing the precisions: ``"auto"`` is fp32."""
PROBE = 2
"""Training images scored after each epoch, to see whether the network still gives finite scores."""
CHECKPOINT_SECONDS = 600
"""The checkpoint is written this often within an epoch, and at the end of each epoch."""
TRACKING = "outputs/tracking"
"""Folder of the logs that TensorBoard and MLflow keep on this machine."""
TORCH_OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=1, momentum=0.9, nesterov=True, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1, fused=True),
}
"""Fused: one pass over all weights; a loop over some hundred tensors takes a quarter of a step's time."""


@dataclasses.dataclass(eq=False)
class Training:
    """A training of a network, in place; `run` does it.

    ``images[numbers]`` is an array of uint8, shape (n, height, width, 3); `targets` are numbers of the network's
    outputs, see `network.Network.set_outputs`. `validation` (images, and numbers of their labels) is scored after each
    epoch. `augment` is such as an `augmentation.Pipeline`. A training resumes from the checkpoint in `folder` if that
    has the same settings and the same `about` (fit for JSON), else it raises ValueError. `tracker`, `workers` and
    `progress` are as in `ImageClassifier.fit`.
    """

    network: Network
    images: Images | np.ndarray
    targets: np.ndarray
    settings: Settings
    validation: tuple[Images | np.ndarray, np.ndarray] | None = None
    augment: Augment | None = None
    seed: int = 0
    folder: str | Path | None = None
    about: dict = dataclasses.field(default_factory=dict)
    tracker: str | None = None
    workers: int | None = None
    progress: bool = True

    def __post_init__(self):
        settings, network, device = self.settings, self.network, devices.default_device()
        if self.validation is None and (settings.keep == "best" or settings.patience):
            raise ValueError("keep='best' and patience need validation images: give validation=")
        if settings.precision == "fp16" and device.type == "cpu":  # Accelerate would take fp32
            raise ValueError("precision 'fp16' needs a GPU; on a CPU there are 'fp32', 'bf16' and 'auto'")
        self.file = None if self.folder is None else Path(self.folder) / "checkpoint.safetensors"
        found = checkpoint.load(self.file) if self.file else None
        network.to(device).train()
        set_training(network, settings.frozen_stages)
        self.parts = Parts(self.images, self.augment)
        self.parts[np.arange(1), np.arange(1)]  # a broken augmentation fails before anything changes
        self.targets = torch.as_tensor(np.asarray(self.targets))
        least = 2 * accelerate.PartialState().num_processes  # batch norms need two images in each process
        self.plan = steps(len(self.targets), settings.batch_size, least)
        # another precision would give other digits
        self.precision = found[1]["precision"] if found else self._choose_precision()
        self.accelerator = _accelerator(self.precision, self.tracker)
        self.device = self.accelerator.device
        self.progress = self.progress and self.accelerator.is_main_process
        self.optimizer = self.accelerator.prepare_optimizer(_optimizer(network, settings))
        label_of = torch.tensor(network.label_of)
        self.labels = label_of[self.targets]
        counts = np.bincount(self.labels, minlength=len(label_of))
        balanced = len(self.labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        weights = balanced if settings.class_weight else np.ones(len(counts))
        self.weights = torch.from_numpy(weights).float()[label_of]
        self.average = None if settings.ema is None else copy.deepcopy(network)
        self.best = None
        # all of the state that is not tensors
        self.at = {"history": [], "step_loss": [], "epoch": 0, "step": 0, "right": 0, "waited": 0}
        self.about = {**self.about, **dataclasses.asdict(settings), "seed": self.seed}
        self.saved = time.monotonic()
        if found:
            self._resume(*found)
        self.good = copy.deepcopy(network.state_dict())

    @devices.memory_kept()
    def run(self, on_epoch: Callable[[History], object] | None = None) -> History:
        """Train, and return the history; `on_epoch` is given the history so far after each epoch."""
        with self.prepared():
            while not self.is_over():
                row = self.epoch()
                self.accelerator.log({k: v for k, v in row.items() if k != "epoch"}, step=row["epoch"])
                if on_epoch:
                    on_epoch(self.history())
        if self.settings.keep == "best":
            load_values(self.network, self.best)
        elif self.average:
            load_values(self.network, self.average.state_dict())
        return self.history()

    def _choose_precision(self):
        settings = self.settings
        if settings.precision != "auto":
            return settings.precision
        if len(self.plan) * settings.epochs < TRIAL_STEPS:
            return "fp32"
        numbers = np.arange(max(2, min(len(self.targets), settings.batch_size // settings.accumulate)))
        batch = torch.from_numpy(np.asarray(self.images[numbers])).to(devices.default_device())
        targets = self.targets[numbers].to(batch.device)
        with devices.memory_explained(settings):
            seconds = devices.time_precisions(self.network, batch, targets)
        worth = [name for name, value in seconds.items() if seconds["fp32"] / value >= devices.WORTH]
        (precision,) = broadcast_object_list([worth[0] if worth else "fp32"])  # all processes take the same
        if self.progress:
            times = ", ".join(f"{name} takes {value:.2f} s" for name, value in seconds.items())
            accelerate.PartialState().print(f"precision {precision}: a step in {times}")
        return precision

    def _resume(self, parts, state):
        about, before = json.loads(json.dumps(self.about)), state["about"]
        if differs := [name for name in about | before if about.get(name) != before.get(name)]:
            problem = f"is of another training, with other {', '.join(sorted(differs))}"
            raise ValueError(f"{self.file} {problem}: delete the checkpoints there, or choose another folder")
        self.at = state["at"]
        load_values(self.network, parts["network"])
        if self.average:
            load_values(self.average, parts["average"])
        self.best = parts["best"]
        checkpoint.restore(self.optimizer, parts["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.progress:
            done = "already finished:" if self.is_over() else "resuming from"
            print(f"{done} {self.file}, after epoch {self.at['epoch']}, step {self.at['step']}")

    def save(self) -> None:
        """Write the checkpoint, if one is kept."""
        self.saved = time.monotonic()
        if self.file is None or not self.accelerator.is_main_process:
            return
        average = self.average.state_dict() if self.average else {}
        parts = {"network": self.network.state_dict(), "average": average, "best": self.best or {}}
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        state = {"about": self.about, "at": self.at, "scaler": scaler, "precision": self.precision}
        try:
            checkpoint.save(self.file, parts, self.optimizer, state)
        except (OSError, SafetensorError) as error:  # a full disk: the next one may fit again
            warn(f"{self.file} could not be written ({error}): the training continues")

    def is_over(self) -> bool:
        """Say whether all epochs are done, or the validation figure has not improved for too long."""
        patience = self.settings.patience
        waited = patience is not None and self.at["waited"] >= patience
        return waited or self.at["epoch"] == self.settings.epochs

    def history(self) -> History:
        """Return the epochs so far."""
        table = pd.DataFrame(self.at["history"]).set_index("epoch")
        return History(table, [*self.at["step_loss"]], self.precision)

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Start the trackers, and leave the caller's random numbers alone."""
        known = self.about | {"precision": self.precision}  # which "auto" took
        shown = {name: value if np.isscalar(value) else str(value) for name, value in known.items()}
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            try:
                self.accelerator.init_trackers("isicvision", shown, {"mlflow": {"nested_run": True}})
                yield
            finally:
                for tracker in self.accelerator.trackers:  # end_training would end the processes' group, too
                    tracker.finish()
                set_training(self.network)
                self.network.eval()

    def epoch(self) -> dict[str, Any]:
        """Train for one epoch, or the rest of it; score, save, and return its row of the history."""
        at, settings = self.at, self.settings
        started = time.perf_counter()
        self.network.train()
        set_training(self.network, settings.frozen_stages, at["epoch"] < settings.freeze_epochs)
        run = torch.compile(self.network) if settings.compile else self.network
        if self.accelerator.num_processes > 1:  # they share the gradients
            run = DistributedDataParallel(run, None if self.device.type == "cpu" else [self.device.index])
        order = order_of(self.labels.numpy(), settings, self.seed, at["epoch"])
        todo = [self._parts_of(order, *step) for step in self.plan[at["step"] :]]
        wanted = [part for _, parts in todo for part in parts]
        batches = load(self.parts, wanted, self.device, self.workers)
        options = {"desc": f"epoch {at['epoch'] + 1}/{settings.epochs}", "disable": not self.progress}
        bar = tqdm(todo, total=len(self.plan), initial=at["step"], leave=False, delay=2, **options)
        pending = []  # (loss, right) of steps that a GPU may still be computing: reading them would wait for it
        with contextlib.closing(batches):
            for number, (scale, parts) in enumerate(bar, 1):
                with devices.memory_explained(settings):
                    pending.append(self._step(run, scale, parts, batches))
                at["step"] += 1
                if self.device.type == "cpu" or len(pending) == 20 or number == len(todo):
                    for loss, right in torch.stack(pending).tolist():
                        self._require_finite(loss)
                        at["step_loss"].append(loss)
                        at["right"] += int(right)
                    pending = []
                    bar.set_postfix_str(f"loss {at['step_loss'][-1]:.3f}", refresh=False)
                    if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                        self.save()
        return self._close_epoch(started)

    def _own(self, numbers):
        """Return the part of an array that this process computes."""
        return np.array_split(numbers, self.accelerator.num_processes)[self.accelerator.process_index]

    def _parts_of(self, order, first, last):
        """Return the factor of a step's summed losses, and (numbers, keys) of its parts in this process."""
        places = np.arange(first, last)
        scale = 1 / self.weights[self.targets[order[places]]].sum().item()
        count = max(1, min(self.settings.accumulate, len(places) // self.accelerator.num_processes))
        own = [self._own(part) for part in np.array_split(places, count)]
        return scale, [(order[part], self.at["epoch"] * len(order) + part) for part in own]

    def _rate(self, number):
        """Return the learning rate of the last layer in a step, counted from the beginning."""
        total = len(self.plan) * self.settings.epochs
        return self.settings.rate(number // len(self.plan), (number + 0.5) / total)

    def _step(self, run, scale, parts, batches):
        """Move the weights once; return the loss over the step, and how many of its images were right."""
        settings, world = self.settings, self.accelerator.num_processes
        number = self.at["epoch"] * len(self.plan) + self.at["step"]
        rate, weights = self._rate(number), self.weights.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        result = torch.zeros(2, device=self.device)
        for n, (numbers, _) in enumerate(parts):
            batch, targets = next(batches), self.targets[numbers].to(self.device)
            part = n * world + self.accelerator.process_index
            seed = np.random.SeedSequence((self.seed, number, part)).generate_state(1, np.uint64)[0]
            torch.manual_seed(int(seed >> 1))  # of dropout
            is_last = n == len(parts) - 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(run):
                with self.accelerator.autocast():
                    logits = run(batch, merged=False).float()
                options = {"reduction": "sum", "label_smoothing": settings.label_smoothing}
                loss = scale * functional.cross_entropy(logits, targets, weights, **options)
                self.accelerator.backward(loss * world)  # gradients are averaged over the processes
            labels = self.network.merge(logits.detach()).argmax(1)
            right = (labels == self.labels[numbers].to(self.device)).sum()
            result += torch.stack([loss.detach(), right])
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            _move(self.average, self.network, min(settings.ema, (1 + number) / (10 + number)))
        return self.accelerator.reduce(result, "sum")

    def _require_finite(self, loss):
        if not math.isfinite(loss):
            self.network.load_state_dict(self.good)
            rate = self.optimizer.param_groups[-1]["lr"]
            raise FloatingPointError(
                f"the loss became {loss} in epoch {self.at['epoch'] + 1} at learning rate {rate:g}: lower the rate, "
                "say to a third. The network has its last good weights again."
            )

    def _close_epoch(self, started):
        at, plan = self.at, self.plan
        lengths = np.array([last - first for first, last in plan])
        row = {
            "epoch": at["epoch"] + 1,
            "learning_rate": self._rate((at["epoch"] + 1) * len(plan) - 1),
            "train_loss": float(np.dot(at["step_loss"][-len(plan) :], lengths) / lengths.sum()),
            "train_accuracy": at["right"] / int(lengths.sum()),
        }
        broadcast([*self.network.buffers()])  # each process has its own statistics of batch norms
        scored = self.average or self.network
        # the last step, or the batch norms' statistics, may have exploded after the last loss
        probe = forward(scored, self.parts.images, range(min(PROBE, len(self.targets))))
        self._require_finite(float(np.abs(probe).max()))
        if self.validation is not None:
            row |= self._validate(scored, *self.validation)
            self._require_finite(row["validation_loss"])
            figure = row["validation_roc_auc"]
            figure = -row["validation_loss"] if math.isnan(figure) else figure
            at["waited"] += 1
            if figure > at.get("best", -math.inf):
                at |= {"best": figure, "waited": 0}
                self.best = copy.deepcopy(scored.state_dict()) if self.settings.keep == "best" else None
        row["seconds"] = time.perf_counter() - started
        at["history"].append(row)
        at |= {"epoch": at["epoch"] + 1, "step": 0, "right": 0}
        self.good = copy.deepcopy(self.network.state_dict())
        self.save()
        if self.progress:
            figures = (f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']}/{self.settings.epochs}", *figures, sep="  ")
        return row

    def _validate(self, network, images, targets):
        with self.accelerator.autocast():
            logits = forward(network, images, self._own(np.arange(len(images))))
        logits = torch.from_numpy(np.concatenate(gather_object([logits])))
        scores, auc = torch.softmax(logits, 1).numpy(), math.nan
        if len(np.unique(targets)) == scores.shape[1] and np.isfinite(scores).all():  # one against the rest
            auc = roc_auc_score(targets, scores[:, 1] if scores.shape[1] == 2 else scores, multi_class="ovr")
        return {
            "validation_loss": functional.cross_entropy(logits, torch.as_tensor(targets)).item(),
            "validation_accuracy": float((logits.argmax(1).numpy() == targets).mean()),
            "validation_roc_auc": float(auc),
        }


def _optimizer(network, settings):
    """Return an optimizer of the head and of what is trained of the body, which has a rate of its own."""
    groups = [{"params": [*network.head.parameters()], "factor": 1.0}]
    if body := [weight for weight in network.body.parameters() if weight.requires_grad]:
        groups.insert(0, {"params": body, "factor": settings.body_rate})
    return TORCH_OPTIMIZERS[settings.optimizer](groups, weight_decay=settings.l2)


@torch.no_grad()
def _move(average, network, decay):
    """Move an average of the weights towards those of the network, in place."""
    pairs = [*zip(average.state_dict().values(), network.state_dict().values(), strict=True)]
    kept, new = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    torch._foreach_lerp_(kept, new, 1 - decay)  # all at once
    for count, value in pairs:
        if not count.is_floating_point():
            count.copy_(value)


def _accelerator(precision, tracker):
    """Return an Accelerator with a tracker, whose files lie under `TRACKING`."""
    folder = Path(TRACKING).absolute()
    if tracker == "mlflow":
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    AcceleratorState._reset_state()  # else this process's first training would set the precision for good
    logs = f"{folder}/{tracker}/{datetime.now():%Y-%m-%d_%H.%M.%S.%f}"
    accelerator = accelerate.Accelerator(
        cpu=devices.on_cpu(),
        mixed_precision=precision.replace("fp32", "no"),
        log_with=tracker,
        project_config=ProjectConfiguration(logging_dir=logs),
    )
    if tracker and not accelerator.log_with:
        raise ModuleNotFoundError(f"the tracker {tracker} is not installed: pip install {tracker}")
    return accelerator
