"""What Ray reads while it is imported, and that no test reaches for what belongs to the person who runs it."""

from __future__ import annotations

import os


def isolate() -> None:
    """Before anything imports ray."""
    os.environ.update(
        RAY_AUTH_MODE="disabled",
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
        RAY_USAGE_STATS_ENABLED="0",
        RAY_DEDUP_LOGS="0",
        RAY_memory_monitor_refresh_ms="0",
    )
    # no credentials, no settings
    for name in [name for name in os.environ if name.startswith(("AWS_", "CARTORAY_", "NEO4J_"))]:
        del os.environ[name]
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
