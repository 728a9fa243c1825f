"""What Azure says of an endpoint: for managed.py."""

import time

PAUSE = 5  # s between two looks at what Azure is still at work on


def find(azure, endpoint):
    """Return the endpoint with this name; None if there is none."""
    return next((each for each in azure.workspace.online_endpoints.list() if each.name == endpoint), None)


def find_deployment(azure, endpoint, name):
    """Return the endpoint's deployment `name`; None if there is none."""
    deployments = azure.workspace.online_deployments.list(endpoint)
    return next((each for each in deployments if each.name == name), None)


def shares(entity):
    """Return the deployments of an endpoint that get requests, with their percentages."""
    return {name: share for name, share in ((entity and entity.traffic) or {}).items() if share}


def settled(read):
    """Return what `read` returns, once Azure is no longer at work on it: until then it refuses changes."""
    while (entity := read()) and str(entity.provisioning_state).lower().endswith("ing"):  # Creating, Updating
        time.sleep(PAUSE)
    return entity


def require_ready(entity):
    """Stop unless Azure has finished what it was told before."""
    state = entity.provisioning_state
    if state is None or state.lower() == "succeeded":
        return
    advice = "wait until `managed.py list` shows Succeeded, then repeat the command"
    if state.lower() in ("failed", "canceled"):
        advice = "it is half made: delete it with its deployments (`managed.py delete`), then deploy again"
        if live := " ".join(f"{name}={share}" for name, share in shares(entity).items()):
            advice = (
                f"it gets requests, so do not delete it: repeat `managed.py traffic {live}`, then the command"
            )
    raise SystemExit(
        f"Nothing was changed, because the endpoint {entity.name} is in the state {state}: {advice}"
    )
