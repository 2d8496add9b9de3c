from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from cartoray.errors import GraphRefused, SettingError
from ingestion.ingestion_actor import IngestionActor
from ingestion.sink import Sink


def test_a_member_has_the_name_that_it_was_given_and_is_idle_until_it_runs(tmp_path: Path) -> None:
    actor = IngestionActor("ingestion-003-5f3a", str(tmp_path))
    assert repr(actor) == "IngestionActor(ingestion-003-5f3a)"
    assert asyncio.run(actor.status()) == {}


def test_a_member_that_waits_for_neo4j_says_so_and_can_be_drained(tmp_path: Path) -> None:
    (tmp_path / "cartoray.toml").write_text('[neo4j]\nuri = "bolt://127.0.0.1:1"\ntimeout_s = 0.2\n')

    async def play() -> dict[str, object]:
        actor = IngestionActor("ingestion-000", str(tmp_path))
        running = asyncio.create_task(actor.run())
        for _ in range(100):
            status = await actor.status()
            if status.get("trouble"):
                break
            await asyncio.sleep(0.05)
        await actor.drain()
        await asyncio.wait_for(running, 10)
        return status

    assert "CARTORAY_NEO4J_URI" in str(asyncio.run(play())["trouble"])


def test_the_end_of_a_member_has_its_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    actor = IngestionActor("ingestion-000", str(tmp_path))

    def refuse(*_: object) -> None:
        raise GraphRefused("CARTORAY_NEO4J_PASSWORD")

    monkeypatch.setattr(Sink, "run", refuse)
    with pytest.raises(GraphRefused, match="CARTORAY_NEO4J_PASSWORD"):
        asyncio.run(actor.run())


def test_a_member_reads_its_settings_where_it_runs(tmp_path: Path) -> None:
    (tmp_path / "cartoray.toml").write_text("[ingestion]\nactors = 0\n")
    with pytest.raises(SettingError, match=r"ingestion\.actors"):
        asyncio.run(IngestionActor("ingestion-000", str(tmp_path)).run())


def test_the_envelope_loads_neither_ray_nor_the_other_pool() -> None:
    code = "import sys, ingestion.ingestion_actor; print([m for m in ('ray', 'actors', 'boto3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
