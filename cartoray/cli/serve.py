"""`cartoray serve`: the workers."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cartoray.cli.common import progress_console, settings, use_simulated_aws
from cartoray.errors import UsageError
from cartoray.logs import log_to_stderr
from cartoray.redaction import redaction

if TYPE_CHECKING:
    from cartoray.cluster.driver import Serving


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    intel_actors: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN-MAX", help="actors that call the cloud APIs, as many as there are jobs for: 2, or 0-8"
        ),
    ] = None,
    ingestion_actors: Annotated[
        str | None,
        typer.Option(metavar="N|MIN-MAX", help="actors that write to Neo4j, as many as there are rows for"),
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Ray's dashboard, when a local Ray is started")] = False,
) -> None:
    """Run the workers: take jobs from Kafka, call the cloud APIs, write the graph.

    Both pools grow with what waits in Kafka, and shrink when nothing does (CARTORAY_INTEL_ACTORS_MIN and _MAX,
    CARTORAY_INGESTION_ACTORS_MIN and _MAX; CARTORAY_SCALING_DOWN_AFTER_S).

    Alone it starts a Ray on this machine; under `ray job submit -- cartoray serve` it joins that cluster. SIGTERM or
    Ctrl-C finishes what is under way and leaves; a second one leaves at once. Killing it loses nothing.
    """
    config = settings()
    log_to_stderr("%(asctime)s %(levelname)s %(name)s %(message)s", redaction(config))
    if use_simulated_aws(config):
        progress_console.print(f"AWS is simulated, at {config.simulated_aws.endpoint_url}", highlight=False)
    if intel_actors:
        changed = config.intel.model_copy(update=_actors("--intel-actors", intel_actors))
        config = config.model_copy(update={"intel": changed})
    if ingestion_actors:
        written = config.ingestion.model_copy(update=_actors("--ingestion-actors", ingestion_actors))
        config = config.model_copy(update={"ingestion": written})

    from cartoray.cluster.driver import Driver

    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            raise SystemExit(128 + number)
        progress_console.print("Finishing what is under way; once more leaves at once.")
        stop.set()

    def ready(serving: Serving) -> None:
        # after ray.init, which installs handlers of its own
        signal.signal(signal.SIGTERM, on_signal)
        signal.signal(signal.SIGINT, on_signal)
        dashboard_text = f", dashboard http://{serving.dashboard_url}" if serving.dashboard_url else ""
        progress_console.print(
            f"Serving: {serving.intel_actors} intel and {serving.ingestion_actors} ingestion actors on Ray at "
            f"{serving.ray_address}{dashboard_text}; Kafka {config.kafka.bootstrap_servers}, Neo4j {config.neo4j.uri}",
            highlight=False,
            soft_wrap=True,
        )

    Driver(config, Path(), dashboard=dashboard).serve(stop, ready)


def _actors(option: str, text: str) -> dict[str, int]:
    """Settings of a pool. Raises UsageError."""
    least, _, most = text.partition("-")
    try:
        found = {"actors_min": int(least), "actors_max": int(most or least)}
    except ValueError:
        found = {"actors_min": 0, "actors_max": 0}
    if not 0 <= found["actors_min"] <= found["actors_max"] or not found["actors_max"]:
        raise UsageError(f"{option} is {text!r}; it takes a number of actors, or the least and the most: 2, or 0-8.")
    return found
