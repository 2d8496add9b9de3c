"""The real parts, started once per run: Kafka, Neo4j, a simulated AWS, and Ray where a test asks for it."""

from __future__ import annotations

import os

# before anything imports ray
os.environ.update(
    RAY_AUTH_MODE="disabled",
    RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DEDUP_LOGS="0",
    RAY_memory_monitor_refresh_ms="0",
)
# no test may reach for the credentials or the settings of the person who runs it
for name in [name for name in os.environ if name.startswith(("AWS_", "CARTORAY_", "NEO4J_"))]:
    del os.environ[name]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
