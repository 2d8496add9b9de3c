"""`cartoray serve`: the workers."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from cartoray.cli.common import progress_console, settings, use_simulated_aws
from cartoray.logs import log_to_stderr

if TYPE_CHECKING:
    from cartoray.cluster.driver import Serving


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    intel_actors: Annotated[
        int | None, typer.Option(min=1, help="actors that call the cloud APIs (CARTORAY_INTEL_ACTORS)")
    ] = None,
    ingestion_actors: Annotated[
        int | None, typer.Option(min=1, help="actors that write to Neo4j (CARTORAY_INGESTION_ACTORS)")
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="Ray's dashboard, when a local Ray is started")] = False,
) -> None:
    """Run the workers: take jobs from Kafka, call the cloud APIs, write the graph.

    Alone it starts a Ray on this machine; under `ray job submit -- cartoray serve` it joins that cluster. SIGTERM or
    Ctrl-C finishes what is under way and leaves; a second one leaves at once. Killing it loses nothing.
    """
    config = settings()
    log_to_stderr("%(asctime)s %(levelname)s %(name)s %(message)s")
    if use_simulated_aws(config):
        progress_console.print(f"AWS is simulated, at {config.simulated_aws.endpoint_url}", highlight=False)
    if intel_actors:
        config = config.model_copy(update={"intel": config.intel.model_copy(update={"actors": intel_actors})})
    if ingestion_actors:
        changed = config.ingestion.model_copy(update={"actors": ingestion_actors})
        config = config.model_copy(update={"ingestion": changed})

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
