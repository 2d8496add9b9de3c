"""Settings of the embedded stack: `CARTORAY_STACK_<NAME>`, read by `cartoray.settings` like every other group."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_MEMORY = r"^[1-9][0-9]*[kKmMgG]$"  # as the JVM and Neo4j both read it


class StackSettings(BaseModel):
    """Where the embedded Kafka and Neo4j live, where their jars come from, and how much memory they get.

    Each default fits a laptop with 8 GB: 512 MB + 1 GB of heap and 256 MB of page cache are about 2 GB of memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    state_dir: Path = Field(
        Path(".cartoray"), description="folder for data, logs and addresses; `cartoray down --wipe` removes it"
    )
    cache_dir: Path | None = Field(
        None, description="folder for the verified jars (200 MB), shared by all stacks; none: the user's cache folder"
    )
    maven_repository: str | None = Field(
        None, description="base URL of the Maven repository to download from; none: Maven Central", min_length=1
    )
    downloads_parallel: int = Field(
        8, ge=1, le=32, description="jars at once; they are small, so the wait is for answers, not for bandwidth"
    )
    kafka_heap: str = Field("512m", pattern=_MEMORY, description="the broker keeps messages on disk, not in its heap")
    neo4j_heap: str = Field(
        "1g", pattern=_MEMORY, description="of which at most 70% go to transactions; raise it for ingestion.batch_rows"
    )
    neo4j_pagecache: str = Field("256m", pattern=_MEMORY, description="of the store's files; about a million nodes")
    start_timeout_s: float = Field(
        120, gt=0, description="for a server to be ready; seconds are usual, recovery after a crash can take longer"
    )
    stop_timeout_s: float = Field(
        30, gt=0, description="from the request to stop until a server is killed; Neo4j writes a checkpoint in it"
    )
