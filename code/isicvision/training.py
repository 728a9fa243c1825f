"""The training loop: gradient descent over augmented minibatches, one learning rate per epoch."""

import math
import time

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional
from tqdm.auto import tqdm

OPTIMIZERS = {
    "sgd": lambda parameters, l2: torch.optim.SGD(parameters, momentum=0.9, nesterov=True, weight_decay=l2),
    "adamw": lambda parameters, l2: torch.optim.AdamW(parameters, weight_decay=l2),
}


def default_device():
    """Return the GPU if there is one, else the CPU: torch.device."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def learning_rates(learning_rate, epochs):
    """Return one learning rate per epoch, from a number or a list of them.

    Raises
    ------
    ValueError
        If the list has another length than `epochs`, or a rate is not a positive number.
    """
    rates = [learning_rate] * epochs if np.isscalar(learning_rate) else list(learning_rate)
    if len(rates) != epochs:
        raise ValueError(
            f"learning_rate has {len(rates)} values for {epochs} epochs; give a number or one for each"
        )
    if not all(isinstance(rate, (int, float)) and math.isfinite(rate) and rate > 0 for rate in rates):
        raise ValueError(f"learning_rate must be positive numbers, not {learning_rate}")
    return rates


def train(
    network,
    pictures,
    targets,
    *,
    validation,
    augment,
    epochs,
    batch_size,
    learning_rate,
    l2,
    optimizer,
    weights,
    seed,
    progress,
):
    """Fine-tune `network` in place and return its history.

    Minimises cross-entropy by SGD with Nesterov momentum 0.9 (the 2018 sample used SGD with momentum), or by
    AdamW (Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019).

    Parameters
    ----------
    network : torch.nn.Module
        Maps uint8 pictures (n, height, width, 3) to logits (n, classes).
    pictures : array of uint8, shape (n, height, width, 3)
    targets : array of int, shape (n,)
    validation : (pictures, targets) or None
        Scored after each epoch; nothing is chosen by it.
    augment : callable or None
        ``augment(pictures, step)``, see `augmentation.Pipeline`.
    epochs, batch_size : int
    learning_rate : float or sequence of float
        One for all epochs, or one for each.
    l2 : float
        Weight decay.
    optimizer : str
        A key of `OPTIMIZERS`.
    weights : array of float, shape (classes,), or None
        Of each class in the loss.
    seed : int
        Of the order of the pictures, dropout and augmentation: the same seed gives the same weights on a CPU.
    progress : bool

    Returns
    -------
    pandas.DataFrame
        A row an epoch: learning_rate, train_loss, train_accuracy, seconds, and, with validation,
        validation_loss, validation_accuracy and (two classes) validation_roc_auc.

    Raises
    ------
    FloatingPointError
        If the loss is no longer finite.
    """
    device = next(network.parameters()).device
    optimizer = OPTIMIZERS[optimizer](network.parameters(), l2)
    class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
    targets = torch.as_tensor(targets)
    order = np.random.default_rng(seed)
    history, step = [], 0
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)  # dropout
        for epoch, rate in enumerate(learning_rates(learning_rate, epochs), start=1):
            started, losses, right = time.perf_counter(), 0.0, 0
            for group in optimizer.param_groups:
                group["lr"] = rate
            network.train()
            batches = _batches(order.permutation(len(targets)), batch_size)
            bar = tqdm(batches, desc=f"epoch {epoch}/{epochs}", leave=False, delay=2) if progress else batches
            for indices in bar:
                batch = np.asarray(pictures[indices])
                batch = augment(batch, step) if augment else batch
                expected = targets[indices].to(device)
                logits = network(torch.from_numpy(batch).to(device))
                loss = functional.cross_entropy(logits, expected, class_weights)
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"the loss became {loss.item()} in epoch {epoch} at learning rate {rate}: lower the rate"
                    )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses += loss.item() * len(indices)
                right += (logits.argmax(1) == expected).sum().item()
                step += 1
            row = {
                "epoch": epoch,
                "learning_rate": rate,
                "train_loss": losses / sum(map(len, batches)),
                "train_accuracy": right / sum(map(len, batches)),
            }
            if validation is not None:
                row |= _validate(network, *validation)
            history.append(row | {"seconds": time.perf_counter() - started})
            if progress:
                print(
                    f"epoch {epoch}/{epochs}",
                    *(f"{key} {value:.4g}" for key, value in list(history[-1].items())[1:]),
                    sep="  ",
                )
    network.eval()
    return pd.DataFrame(history).set_index("epoch")


def _batches(order, batch_size):
    batches = np.split(order, range(batch_size, len(order), batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches.pop()  # batch norm cannot learn from a single picture; another order leaves out another one
    return batches


def _validate(network, pictures, targets):
    logits = torch.from_numpy(forward(network, pictures))
    result = {
        "validation_loss": functional.cross_entropy(logits, torch.as_tensor(targets)).item(),
        "validation_accuracy": (logits.argmax(1).numpy() == targets).mean(),
    }
    if logits.shape[1] == 2 and len(set(targets)) == 2:
        result["validation_roc_auc"] = roc_auc_score(targets, (logits[:, 1] - logits[:, 0]).numpy())
    return result


def forward(function, pictures, batch_size=64, progress=None):
    """Apply a network (or its ``features``) to pictures in batches, without gradients.

    Parameters
    ----------
    function : torch.nn.Module or its bound method
    pictures : array of uint8, shape (n, height, width, 3)
    batch_size : int
    progress : str or None
        Title of the progress bar.

    Returns
    -------
    numpy.ndarray of float32, shape (n, outputs)
    """
    network = getattr(function, "__self__", function)
    device = next(network.parameters()).device
    network.eval()
    starts = range(0, len(pictures), batch_size)
    if progress:
        starts = tqdm(starts, desc=progress, unit="batch", leave=False, delay=2)
    with torch.inference_mode():
        outputs = [
            function(torch.from_numpy(np.array(pictures[start : start + batch_size])).to(device)).cpu()
            for start in starts
        ]
    return torch.cat(outputs).numpy()
