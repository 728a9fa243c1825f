"""A workspace of Azure Machine Learning (SDK v2), and Azure's errors as one sentence: for the scripts that use both.

    with explained():
        workspace = open_workspace(".azureml/config.json")
        workspace.jobs.create_or_update(job)

azure-ai-ml has an environment of its own, see docs/azure.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.ai.ml import MLClient

_NAMES = ("subscription_id", "resource_group", "workspace_name")
_PORTAL = "get it from Azure portal > your workspace > Download config.json"
_LOGIN = "run `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET"
# words of Azure's messages in lower case, and what to do then; the first that fits counts
_ADVICE = (
    (
        ("authorizationfailed", "does not have authorization"),
        "This login may not do that: ask for the role that docs/azure.md names, or log in as another",
    ),
    (
        ("quota",),
        "The quota is too small: request more in the portal (Quotas), or name fewer or smaller machines in the "
        "YAML file",
    ),
    (
        ("endpoint with this name", "unique within a region"),
        "The endpoint's name is taken in this region: choose another by --endpoint NAME",
    ),
    (
        ("provisioning state",),
        "Azure is still at work on the endpoint, or could not finish it: see its state by `managed.py list`, then "
        "repeat the command",
    ),
    (
        ("subscriptionnotfound", "invalidsubscriptionid"),
        "This login sees no such subscription: compare subscription_id in config.json with `az account list`",
    ),
    (
        ("resourcegroupnotfound", "' under resource group"),
        f"There is no such workspace: the config.json may be an old one, {_PORTAL}",
    ),
)


def open_workspace(config: str | Path) -> MLClient:
    """Open the workspace that a config.json names; SystemExit says what is wrong with that file.

    It logs in by the variables AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or as `az login` did, at the
    first call.
    """
    try:
        settings = json.loads(Path(config).read_text(encoding="utf-8"))
        named = [str.strip(settings[name]) for name in _NAMES]  # TypeError if not text
    except FileNotFoundError:
        raise SystemExit(f"{config} is missing: {_PORTAL}") from None
    except OSError as error:  # a folder, or a file of somebody else
        raise SystemExit(f"{config} cannot be read ({error.strerror}): {_PORTAL}") from None
    except (ValueError, LookupError, TypeError) as error:
        raise SystemExit(f"{config} does not name {', '.join(_NAMES)}: {_PORTAL}") from error
    from azure.ai.ml import MLClient
    from azure.identity import DefaultAzureCredential

    return MLClient(DefaultAzureCredential(), *named)


@contextmanager
def explained() -> Iterator[None]:
    """End the program with one sentence and status 1 where Azure refuses; other errors pass through.

    >>> with explained():
    ...     print("calls to Azure")
    calls to Azure
    """
    logging.getLogger("azure.identity").setLevel(
        logging.ERROR
    )  # it warns in 15 lines of all the logins it tried
    try:
        yield
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        raise SystemExit(sentence) from error


def explain(error: BaseException) -> str | None:
    """Return in one sentence what Azure refused and what to do; None if `error` is not one of Azure's.

    >>> explain(ValueError("something else"))
    """
    try:
        from azure.core import exceptions
    except ImportError:
        return None
    if not isinstance(error, exceptions.AzureError):
        return None
    said, status = _said(error), getattr(error, "status_code", None)
    if isinstance(error, exceptions.ClientAuthenticationError):
        return f"Azure does not know who you are: {_LOGIN}" + (f" (Azure says: {said})" if status else "")
    if isinstance(error, exceptions.ServiceRequestError):
        return f"Azure cannot be reached: check the network and the proxy, then repeat the command ({said})"
    text = str(error).lower()
    for words, advice in _ADVICE:
        if any(word in text for word in words):
            return f"{advice} (Azure says: {said})"
    if isinstance(error, exceptions.ResourceNotFoundError):
        return f"Azure finds no such thing: compare the names with `managed.py list` (Azure says: {said})"
    if isinstance(error, exceptions.HttpResponseError):
        return f"Azure refuses{f' with status {status}' if status else ''}: {said}"
    return said  # of azure-ai-ml itself, about a file or a value


def _said(error):
    """Return the innermost of Azure's messages, in one line."""
    inner = getattr(error, "error", None)
    while getattr(inner, "details", None):
        inner = inner.details[0]
    message = str(getattr(inner, "message", None) or getattr(error, "message", None) or error)
    _, _, detail = message.partition("error detail: ")  # that of endpoints and deployments is JSON once more
    try:
        errors = json.loads(detail)["errors"]
        message = "; ".join(str(each) for messages in errors.values() for each in messages)
    except (ValueError, LookupError, AttributeError, TypeError):
        pass
    return " ".join(message.split())[:400]
