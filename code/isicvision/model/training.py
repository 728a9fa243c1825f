"""The training loop: batches, precision, steps, and how it stops and goes on.

Nothing random depends on what came before: the order of an epoch follows from (seed, epoch), the augmentation of an
image from (seed, its place in the epochs), dropout from (seed, step). So the same seed gives the same weights on
a CPU, however many workers augment, and a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import time
import warnings
from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import accelerate
import numpy as np
import pandas as pd
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError
from sklearn.metrics import roc_auc_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from . import checkpoint, distributed, tracking
from . import devices as hardware
from .batches import Augment, Parts, forward, load, order_of, steps
from .network import Network, load_values, set_rows, set_training
from .settings import Settings

if TYPE_CHECKING:
    from ..data.cache import Images

TORCH_OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=1, momentum=0.9, nesterov=True, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1, fused=True),
}
"""Fused: one pass over all weights, where a loop over some hundred tensors takes a quarter of a step's time."""
TRIAL_STEPS = 50
"""Trainings of fewer steps are not worth the trial: ``"auto"`` is fp32."""
PROBE = 2
"""Training images scored at the end of each epoch, to see whether the network still gives finite scores."""
CHECKPOINT_SECONDS = 600
"""So often within a long epoch, and at the end of each, the checkpoint is written."""
TRACKED = (
    "backbone",
    "weights",
    "image_size",
    "dropout",
    "seed",
    *(field.name for field in dataclasses.fields(Settings)),
)
"""What a tracker is told of a training, beside its epochs."""


@dataclasses.dataclass(frozen=True)
class History:
    """What a training did.

    Attributes
    ----------
    table
        A row an epoch, under ``epoch`` (from 1): learning_rate (of the last step), train_loss, train_accuracy, seconds
        and, with validation, validation_loss, validation_accuracy and validation_roc_auc (with more than two labels the
        mean of one against the rest; NaN where it is not defined). With several ``members`` the rows of all, one after
        the other, with a column ``network`` (1, 2, …).
    step_loss
        The loss of each step.
    precision
        ``"fp32"``, ``"bf16"`` or ``"fp16"``: what ``"auto"`` took.

    Examples
    --------
    >>> table = pd.DataFrame({"train_loss": [0.7, 0.5]}, index=pd.Index([1, 2], name="epoch"))
    >>> history = History(table, step_loss=[0.8, 0.6, 0.5, 0.5], precision="fp32")
    >>> len(history), len(History.joined([history, history]))
    (2, 4)
    """

    table: pd.DataFrame
    step_loss: list[float]
    precision: str

    def __len__(self) -> int:
        return len(self.table)

    @classmethod
    def joined(cls, histories: Sequence[History]) -> History:
        """Join the histories of several networks; the epochs count on."""
        tables, done = [], 0
        for number, history in enumerate(histories, 1):
            table = history.table.assign(network=number)
            tables.append(table.set_index(table.index + done))
            done += len(table)
        losses = [loss for history in histories for loss in history.step_loss]
        return cls(pd.concat(tables), losses, histories[-1].precision)

    def records(self) -> list[dict]:
        """Return the rows of `table`, fit for JSON, which has no NaN."""
        rows = self.table.reset_index().astype(object)
        return rows.where(rows.notna(), None).to_dict("records")


_Part = namedtuple("_Part", "numbers keys rows total scale")


@hardware.memory_kept()
def train(
    network: Network,
    images: Images | np.ndarray,
    targets: np.ndarray,
    settings: Settings,
    *,
    validation: tuple[Images | np.ndarray, np.ndarray] | None = None,
    augment: Augment | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    about: dict | None = None,
    tracker: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    on_epoch: Callable[[History], object] | None = None,
    on_start: Callable[[], object] | None = None,
) -> History:
    """Fine-tune `network` in place and return its history.

    ``images[numbers]`` is an array of uint8, shape (n, height, width, 3). `targets` are numbers of the network's
    outputs (see `network.Network.set_outputs`); those of `validation`, which is scored after each epoch in the
    precision of the training, are numbers of labels. ``augment(images, keys)`` is like `augmentation.Pipeline`,
    `workers` as of `batches.load`; `tracker`, `progress` and `on_epoch` are as of `ImageClassifier.fit`. `folder` keeps
    ``checkpoint.safetensors``: if there is one of the same training, by its settings and by `about` (fit for JSON), it
    goes on from there.

    Raises FloatingPointError if the loss is no longer finite (the network then has the weights of the last good epoch),
    MemoryError if a batch does not fit (the message says what to try), ValueError if the checkpoint is damaged or of
    another training.
    """
    if validation is None and (settings.keep == "best" or settings.patience):
        raise ValueError("keep='best' and patience go by the validation images: give validation=")
    file = None if folder is None else Path(folder) / "checkpoint.safetensors"
    found = None if file is None else checkpoint.load(file)
    # not timed anew: another choice would give other digits
    precision = found[2]["precision"] if found else None
    options = {"validation": validation, "workers": workers, "precision": precision}
    if file is not None:
        checkpoint.require_folder(file.parent)  # now, not after an epoch
    training = Training(network, images, targets, settings, augment, seed, progress, **options)
    training.open(file, about, found)
    # an augmentation that cannot work fails here, before anything changes
    training.parts[np.arange(1), np.arange(1)]
    with training.prepared(tracker) as log:
        if on_start:
            on_start()  # from here on the network changes
        while not training.is_over():
            training.epoch()
            log(training.at["history"][-1])
            if on_epoch:
                on_epoch(training.history())
    training.finish()
    return training.history()


class Training:
    """A training in progress; `at` is all of its state that is not tensors."""

    def __init__(
        self,
        network,
        images,
        targets,
        settings,
        augment,
        seed,
        progress,
        validation=None,
        workers=None,
        precision=None,
    ):
        self.settings, self.validation, self.seed, self.workers = settings, validation, seed, workers
        device = hardware.default_device()
        if (precision or settings.precision) == "fp16" and device.type == "cpu":  # Accelerate would take fp32
            raise ValueError("precision 'fp16' needs a GPU; on a CPU there are 'fp32', 'bf16' and 'auto'")
        self.network = network.to(device).train()
        self.parts, self.targets = Parts(images, augment), torch.as_tensor(np.asarray(targets))
        self.plan = steps(len(self.targets), settings.batch_size)
        set_training(network, settings.frozen_stages)
        precision, seconds = (precision, {}) if precision else self._precision()
        AcceleratorState._reset_state()  # else this process's first training would set the precision for good
        self.accelerator = accelerate.Accelerator(
            cpu=hardware.on_cpu(), mixed_precision=precision.replace("fp32", "no")
        )
        self.progress = progress and self.accelerator.is_main_process
        if self.progress and seconds:
            times = ", ".join(f"{name} takes {value:.2f} s" for name, value in seconds.items())
            print(f"precision {precision}: a step in {times}")
        self.device, self.precision = self.accelerator.device, precision
        groups = [{"params": [*network.head.parameters()], "factor": 1.0}]
        if body := [weight for weight in network.body.parameters() if weight.requires_grad]:
            groups.insert(0, {"params": body, "factor": settings.body_rate})
        optimizer = TORCH_OPTIMIZERS[settings.optimizer](groups, weight_decay=settings.l2)
        self.optimizer = self.accelerator.prepare_optimizer(optimizer)
        label_of = torch.tensor(network.label_of)
        self.labels, self.weights = label_of[self.targets], torch.ones(len(label_of))
        if settings.class_weight == "balanced":
            seen, labels = np.unique(self.labels), self.labels.numpy()
            weights = np.ones(int(label_of.max()) + 1, np.float32)
            weights[seen] = compute_class_weight("balanced", classes=seen, y=labels)
            self.weights = torch.from_numpy(weights)[label_of]
        self.average = None if settings.ema is None else copy.deepcopy(network.state_dict())
        self.best, self.good, self.good_from = None, copy.deepcopy(network.state_dict()), "from the beginning"
        self.at = {
            "epoch": 0,
            "step": 0,
            "right": 0,
            "seconds": 0.0,
            "waited": 0,
            "history": [],
            "step_loss": [],
        }
        self.file, self.about, self.saved = None, {}, time.monotonic()

    def _precision(self):
        """Find the precision, the same for all processes; return it, and the seconds of each that was timed."""
        settings = self.settings
        if settings.precision != "auto":
            return settings.precision, {}
        if len(self.plan) * settings.epochs < TRIAL_STEPS:
            return "fp32", {}
        device = hardware.default_device()
        numbers = np.arange(max(2, min(len(self.targets), settings.batch_size // settings.accumulate)))
        batch = torch.from_numpy(np.asarray(self.parts.images[numbers])).to(device)
        with hardware.memory_explained(settings):
            seconds = hardware.time_precisions(self.network, batch, self.targets[numbers].to(device))
        fp32, *others = seconds
        worth = [name for name in others if seconds[fp32] / seconds[name] >= hardware.WORTH]
        return broadcast_object_list([worth[0] if worth else fp32])[0], seconds

    def open(self, file, about, found):
        """Go on from what was `found` in the checkpoint `file`, if anything, and keep it up to date from now on."""
        settings = {**dataclasses.asdict(self.settings), "seed": self.seed}
        self.file, self.about = file, {**(about or {}), **settings}
        if found is None:
            return
        parts, optimizer_state, state = found
        about = json.loads(json.dumps(self.about))
        before = state["about"]
        if differs := [name for name in about | before if about.get(name) != before.get(name)]:
            raise ValueError(
                f"{file} is of another training, with other {', '.join(sorted(differs))}: choose another folder for "
                "checkpoint=, or delete it"
            )
        self.at = state["at"]
        load_values(self.network, parts["network"])
        for name in ("average", "best"):
            if name in parts:
                setattr(self, name, {key: value.to(self.device) for key, value in parts[name].items()})
        self.good, self.good_from = copy.deepcopy(self.network.state_dict()), f"of the checkpoint {file}"
        checkpoint.restore(self.optimizer, optimizer_state)
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.progress and self.is_over():
            print(f"finished already: weights and history are those of {file}")
        elif self.progress:
            print(f"going on from {file}, epoch {self.at['epoch'] + 1}, step {self.at['step'] + 1}")

    def save(self):
        """Write the checkpoint, if one is kept."""
        self.saved = time.monotonic()
        if self.file is None or not self.accelerator.is_main_process:
            return
        parts = {"network": self.network.state_dict(), "average": self.average or {}, "best": self.best or {}}
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else None
        state = {"about": self.about, "at": self.at, "scaler": scaler, "precision": self.precision}
        try:
            checkpoint.save(self.file, parts, self.optimizer, state)
        except (OSError, SafetensorError) as error:  # a full disk: the next one may fit again
            warnings.warn(
                f"{self.file} could not be written ({error}): the training goes on, but if it is killed, begins again "
                f"{'from the one before' if self.file.exists() else 'anew'}",
                stacklevel=2,
            )

    def is_over(self):
        """Say whether all epochs are done, or the validation figure has not improved for too long."""
        patience = self.settings.patience
        return self.at["epoch"] == self.settings.epochs or (patience and self.at["waited"] >= patience)

    def history(self):
        """Return the epochs so far."""
        table = pd.DataFrame(self.at["history"])
        table = table.set_index("epoch") if len(table) else table
        return History(table, [*self.at["step_loss"]], self.precision)

    @contextlib.contextmanager
    def prepared(self, tracker):
        """Share batch norms between processes, leave the caller's random numbers alone, and open the log."""
        with (
            distributed.shared_batch_norm(self.network, self.accelerator),
            torch.random.fork_rng(devices=range(torch.cuda.device_count())),
        ):
            tracker = tracker if self.accelerator.is_main_process else None
            shown = {name: self.about[name] for name in TRACKED if name in self.about}
            shown["precision"] = self.precision  # which "auto" took
            try:
                with tracking.start(tracker, shown) as log:
                    yield log
            finally:
                set_rows(self.network)
                set_training(self.network)
                self.network.eval()

    def epoch(self):
        """Train for one epoch, or the rest of it, then score and save."""
        at, settings = self.at, self.settings
        started, before = time.perf_counter(), at["seconds"]
        self.network.train()
        set_training(self.network, settings.frozen_stages, at["epoch"] < settings.freeze_epochs)
        run, order = self._runner(), order_of(self.labels.numpy(), settings, self.seed, at["epoch"])
        todo = [self._parts_of(order, *step) for step in self.plan[at["step"] :]]
        wanted = [(part.numbers, part.keys) for step in todo for part in step]
        batches = load(self.parts, wanted, self.device, self.workers)
        options = {"desc": f"epoch {at['epoch'] + 1}/{settings.epochs}", "disable": not self.progress}
        bar = tqdm(total=len(self.plan), initial=at["step"], leave=False, delay=2, **options)
        pending = []  # (loss, right) of steps that a GPU may still be at: to ask for them would make it wait
        with bar, contextlib.closing(batches):
            for number, step in enumerate(todo):
                with hardware.memory_explained(settings):
                    pending.append(self._step(run, step, batches))
                at["step"] += 1
                if self.device.type == "cpu" or len(pending) == 20 or number == len(todo) - 1:
                    self._note(pending)
                    pending = []
                    bar.set_postfix_str(f"loss {at['step_loss'][-1]:.3f}", refresh=False)
                    if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                        at["seconds"] = before + time.perf_counter() - started
                        self.save()
                bar.update()
        self._close_epoch(before, started)

    def _parts_of(self, order, first, last):
        """List the parts of a step, each with the rows that this process computes."""
        places, parts = np.arange(first, last), []
        scale = 1 / self.weights[self.targets[order[places]]].sum().item()
        for part in np.array_split(places, min(self.settings.accumulate, len(places))):
            rows = distributed.rows(len(part), self.accelerator)
            keys = self.at["epoch"] * len(order) + part[rows]
            parts.append(_Part(order[part[rows]], keys, rows, len(part), scale))
        return parts

    def _runner(self):
        """Return what computes logits: the network, compiled if wished, its gradients shared between processes."""
        run = torch.compile(self.network) if self.settings.compile else self.network
        if self.accelerator.num_processes == 1:
            return run
        devices = None if self.device.type == "cpu" else [self.device.index]
        return DistributedDataParallel(run, device_ids=devices, broadcast_buffers=False)

    def _rate(self, number):
        """Return the learning rate of the last layer in a step, counted from the beginning."""
        total = len(self.plan) * self.settings.epochs
        return self.settings.rate(number // len(self.plan), (number + 0.5) / total)

    def _step(self, run, step, batches):
        """Move the weights once; return the loss over the step, and how many of its images were right."""
        at, settings, world = self.at, self.settings, self.accelerator.num_processes
        number = at["epoch"] * len(self.plan) + at["step"]
        rate = self._rate(number)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        result = torch.zeros(2, device=self.device)
        for n, part in enumerate(step):
            batch, targets = next(batches), self.targets[part.numbers].to(self.device)
            labels = self.labels[part.numbers].to(self.device)
            set_rows(self.network, part.rows, part.total)
            torch.manual_seed(_seed(self.seed, number, n))  # dropout
            wait = run.no_sync() if world > 1 and n < len(step) - 1 else contextlib.nullcontext()
            with wait:
                with self.accelerator.autocast():
                    logits = run(batch, merged=False).float()
                loss = part.scale * functional.cross_entropy(
                    logits,
                    targets,
                    self.weights.to(self.device),
                    reduction="sum",
                    label_smoothing=settings.label_smoothing,
                )
                self.accelerator.backward(loss * world)  # gradients are averaged over the processes
            right = self.network.merge(logits.detach()).argmax(1) == labels
            result += torch.stack([loss.detach(), right.sum()])
        if self.device.type == "cpu":
            self._require_finite(result[0].item())  # before it spoils the weights
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.average is not None:
            _move_average(self.average, self.network, min(settings.ema, (1 + number) / (10 + number)))
        return self.accelerator.reduce(result, "sum")

    def _note(self, results):
        """Keep losses and right answers of steps, once they are known."""
        for loss, right in torch.stack(results).tolist():
            self._require_finite(loss)
            self.at["step_loss"].append(loss)
            self.at["right"] += int(right)

    def _require_finite(self, loss):
        if not math.isfinite(loss):
            self.network.load_state_dict(self.good)
            rate = self.optimizer.param_groups[-1]["lr"]
            raise FloatingPointError(
                f"the loss became {loss} in epoch {self.at['epoch'] + 1} at learning rate {rate:g}: lower the rate, "
                f"to a third, say. The weights are again those {self.good_from}."
            )

    def _close_epoch(self, before, started):
        at, plan = self.at, self.plan
        lengths = np.array([last - first for first, last in plan])
        row = {
            "epoch": at["epoch"] + 1,
            "learning_rate": self._rate((at["epoch"] + 1) * len(plan) - 1),
            "train_loss": float(np.dot(at["step_loss"][-len(plan) :], lengths) / lengths.sum()),
            "train_accuracy": at["right"] / int(lengths.sum()),
        }
        with self._averaged():
            # the last step, or the statistics of batch norms, may have exploded after the last loss
            probe = forward(self.network, self.parts.images, range(min(PROBE, len(self.targets))))
            self._require_finite(float(np.abs(probe).max()))
            if self.validation is not None:
                row |= self._validate(*self.validation)
                self._require_finite(row["validation_loss"])
                figure = row["validation_roc_auc"]
                figure = -row["validation_loss"] if math.isnan(figure) else figure
                if figure > at.get("best", -math.inf):
                    at["best"], at["waited"] = figure, 0
                    if self.settings.keep == "best":
                        self.best = copy.deepcopy(self.network.state_dict())
                else:
                    at["waited"] += 1
        row["seconds"] = before + time.perf_counter() - started
        at["history"].append(row)
        at |= {"epoch": at["epoch"] + 1, "step": 0, "right": 0, "seconds": 0.0}
        self.good, self.good_from = copy.deepcopy(self.network.state_dict()), f"after epoch {at['epoch']}"
        self.save()
        if self.progress:
            figures = (f"{name} {value:.4g}" for name, value in row.items() if name != "epoch")
            print(f"epoch {row['epoch']}/{self.settings.epochs}", *figures, sep="  ")

    @contextlib.contextmanager
    def _averaged(self):
        """Lend the network the moving average of its weights, if there is one."""
        if self.average is None:
            yield
            return
        own = copy.deepcopy(self.network.state_dict())
        load_values(self.network, self.average)
        yield
        self.network.load_state_dict(own)

    def _validate(self, images, targets):
        rows = distributed.rows(len(images), self.accelerator)
        with self.accelerator.autocast():
            logits = forward(self.network, images, numbers=range(len(images))[rows])
        logits = distributed.gather(torch.from_numpy(logits), self.accelerator)
        return {
            "validation_loss": functional.cross_entropy(logits, torch.as_tensor(targets)).item(),
            "validation_accuracy": float((logits.argmax(1).numpy() == targets).mean()),
            "validation_roc_auc": _roc_auc(targets, torch.softmax(logits, 1).numpy()),
        }

    def finish(self):
        """Give the network the weights that were to be kept."""
        if self.settings.keep == "best":
            load_values(self.network, self.best)
        elif self.average is not None:
            load_values(self.network, self.average)
        self.network.eval()


def _seed(*numbers):
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@torch.no_grad()
def _move_average(average, network, decay):
    new = network.state_dict()
    real = [name for name, kept in average.items() if kept.is_floating_point()]
    # all at once
    torch._foreach_lerp_([average[name] for name in real], [new[name] for name in real], 1 - decay)
    for name in average.keys() - set(real):  # counts
        average[name].copy_(new[name])


def _roc_auc(targets, scores):
    """Return the area under the ROC curve; of more than two labels the mean of one against the rest; or NaN."""
    if len(np.unique(targets)) < scores.shape[1] or not np.isfinite(scores).all():
        return math.nan
    return float(roc_auc_score(targets, scores[:, 1] if scores.shape[1] == 2 else scores, multi_class="ovr"))
