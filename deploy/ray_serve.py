"""`videomae serve` on Ray Serve: as many replicas as the load asks for, on all machines of a cluster.

    pip install 'videomae[serve]' 'ray[serve]'
    serve run --working-dir deploy ray_serve:build model=/models/run/model min_replicas=1 max_replicas=8

Every machine must find the model under the same path, or by its id on the Hub. A replica is a whole server: its own
model, batches and decoding processes. Ray's proxy spreads requests over the replicas; behind it `/metrics` and the
limits are those of one replica.
"""

from typing import Any

from ray import serve

from videomae.serving.app import make_app
from videomae.serving.limits import Limits
from videomae.serving.model import ServedModel
from videomae.serving.service import Service


def make_replica(model: str, engine: str | None = None, token: str | None = None) -> Any:
    """Open the model, where the replica runs, and return its application."""
    return make_app(Service(ServedModel.open(model, engine=engine), Limits()), token=token)  # type: ignore[arg-type]


def build(arguments: dict[str, str]) -> serve.Application:
    """Return the application for ``serve run``.

    Args:
        arguments: "model", a path or an id; and, where wanted, "engine", "token", "cpus" and "gpus" of a replica, and
            "min_replicas" and "max_replicas".
    """
    given = dict(arguments)
    resources = {"num_cpus": float(given.pop("cpus", 1)), "num_gpus": float(given.pop("gpus", 0))}
    replicas = {name: int(given.pop(name, 1)) for name in ("min_replicas", "max_replicas")}

    def replica() -> Any:
        return make_replica(**given)

    server = serve.ingress(replica)
    deployment = serve.deployment(
        name="videomae",
        ray_actor_options=resources,
        autoscaling_config=replicas | {"target_ongoing_requests": Limits().max_batch},
        max_ongoing_requests=Limits().max_requests,
    )
    return deployment(server()).bind()
