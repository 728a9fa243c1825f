"""One file from which a training resumes as if it had never stopped: tensors as safetensors, the rest as JSON."""

import json
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..files import replacing


def require_folder(folder: Path) -> None:
    """Make the folder; raise OSError if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"checkpoint={folder} cannot be written to: {error.strerror}") from error


def save(path: Path, parts: dict[str, dict], optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Write a checkpoint, whole or not at all.

    `parts` are state dicts by name, such as ``{"network": network.state_dict()}``; `state` is all else, fit for JSON.
    """
    tensors = {f"{part}/{name}": tensor for part, values in parts.items() for name, tensor in values.items()}
    scalars = {}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            where = tensors if torch.is_tensor(value) else scalars
            where[f"optimizer/{number}/{name}"] = value
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as part:
        save_file(tensors, part, {"state": json.dumps({**state, "optimizer": scalars})})


def load(path: Path) -> tuple[dict, dict, dict] | None:
    """Read what `save` was given: parts, the optimizer's state (for `restore`), state; None if there is no file.

    Raises ValueError if the file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # no dict: has no items()
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a whole checkpoint ({error}): delete it to start again") from error
    parts, optimizer_state = {}, {}
    for name, value in {**tensors, **state.pop("optimizer")}.items():
        part, _, rest = name.partition("/")
        if part == "optimizer":
            number, _, rest = rest.partition("/")
            optimizer_state.setdefault(int(number), {})[rest] = value
        else:
            parts.setdefault(part, {})[rest] = value
    return parts, optimizer_state, state


def restore(optimizer: torch.optim.Optimizer, optimizer_state: dict) -> None:
    """Give an optimizer the state that `load` read, laid out in memory as its weights are: fused ones rely on that."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, values in optimizer_state.items():
        for name, value in values.items():
            if torch.is_tensor(value) and value.shape == weights[number].shape:
                values[name] = torch.empty_like(weights[number]).copy_(value)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": optimizer_state})
