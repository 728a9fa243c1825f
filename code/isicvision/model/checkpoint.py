"""One file from which a training resumes as if it had never stopped: tensors as safetensors, the rest as JSON."""

import json
import tempfile
from collections import defaultdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..files import replacing


def save(path: Path, parts: dict[str, dict], optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Write a checkpoint, whole or not at all: `parts`, state dicts by name, and `state`, all else, fit for JSON."""
    of_weights = optimizer.state_dict()["state"].items()
    moments = {f"{number}/{name}": value for number, values in of_weights for name, value in values.items()}
    tensors = {
        f"{part}/{name}": tensor.detach().cpu().contiguous()
        for part, values in {**parts, "optimizer": moments}.items()
        for name, tensor in values.items()
    }
    with replacing(path) as new:
        save_file(tensors, new, {"state": json.dumps(state)})


def load(path: Path) -> tuple[dict[str, dict], dict] | None:
    """Read what `save` was given: parts, ``optimizer`` (for `restore`) among them, and state; None if there is no file.

    Raises ValueError if the file is damaged, OSError if none can be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OSError(f"checkpoint={path.parent} cannot be written to: {error.strerror}") from error
    if not path.exists():
        return None
    parts: dict[str, dict] = defaultdict(dict)
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            for key in file.keys():  # no dict: has no items()
                part, _, name = key.partition("/")
                parts[part][name] = file.get_tensor(key).clone()  # Windows replaces no file that is mapped
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a whole checkpoint ({error}): delete it to start again") from error
    return parts, state


def restore(optimizer: torch.optim.Optimizer, moments: dict[str, torch.Tensor]) -> None:
    """Give an optimizer the state that `load` read, laid out in memory as its weights are: fused ones rely on that."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict] = defaultdict(dict)
    for key, value in moments.items():
        number, _, name = key.partition("/")
        weight = weights[int(number)]
        same = value.shape == weight.shape
        state[int(number)][name] = torch.empty_like(weight).copy_(value) if same else value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
