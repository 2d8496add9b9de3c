"""Downloads from a Maven repository that the test serves on loopback."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest

from cartoray.errors import StackError
from cartoray.settings import StackSettings
from cartoray.stack import artifacts

JARS = {f"org/example/{name}/1/{name}-1.jar": name.encode() * 50_000 for name in ("one", "two", "three")}
JARS["org/example/one/1/one-1-linux.jar"] = b"beside the first"


class Repository:
    """Serves JARS; of a path, the first `wrong[path]` answers are wrong and the first `cut[path]` cut short."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.cut: Counter[str] = Counter()
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.removeprefix("/maven/")
                repository.asked[path] += 1
                body = JARS.get(path)
                self.send_response(200 if body is not None else 404)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                if repository.asked[path] <= repository.wrong[path]:
                    body = bytes(len(body or b""))
                if repository.asked[path] <= repository.cut[path]:
                    body = (body or b"")[:10]
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.address = f"127.0.0.1:{self.server.server_port}/maven"


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    lock = "".join(f"{name} sha256:{hashlib.sha256(body).hexdigest()}\n" for name, body in JARS.items())
    (tmp_path / "kafka.lock").write_text(f"# a comment\n{lock}")
    (tmp_path / "neo4j.lock").write_text(lock.splitlines()[0] + "\n")
    monkeypatch.setattr(artifacts, "lock_file", lambda server: tmp_path / f"{server}.lock")
    monkeypatch.setattr(artifacts, "RETRIES", 1)
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _seconds: None))  # it would wait before a retry
    repository = Repository()
    yield repository
    repository.server.shutdown()
    repository.server.server_close()


def _settings(repository: Repository, tmp_path: Path, login: str = "") -> StackSettings:
    return StackSettings(cache_dir=tmp_path / "cache", maven_repository=f"http://{login}{repository.address}/")


def test_all_jars_are_had_once_and_shared(repository: Repository, tmp_path: Path) -> None:
    seen: list[artifacts.Progress] = []
    jars = artifacts.fetch(["kafka", "neo4j"], _settings(repository, tmp_path), seen.append)
    assert [path.read_bytes() for path in jars["kafka"]] == list(JARS.values())
    assert jars["neo4j"] == jars["kafka"][:1]
    assert [progress.jars_done for progress in seen] == [1, 2, 3, 4]
    assert seen[-1] == artifacts.Progress(4, 4, sum(map(len, JARS.values())), finished=True)
    artifacts.fetch(["kafka"], _settings(repository, tmp_path), seen.append)
    assert set(repository.asked.values()) == {1}
    assert seen[-1].bytes_downloaded == 0


def test_a_spoilt_jar_in_the_cache_is_downloaded_again(repository: Repository, tmp_path: Path) -> None:
    jars = artifacts.fetch(["kafka"], _settings(repository, tmp_path))["kafka"]
    jars[1].write_bytes(b"not a jar")
    artifacts.fetch(["kafka"], _settings(repository, tmp_path))
    assert jars[1].read_bytes() == JARS["org/example/two/1/two-1.jar"]
    assert sum(repository.asked.values()) == len(JARS) + 1


@pytest.mark.parametrize("how", ["wrong", "cut"])
def test_a_spoilt_download_is_repeated(repository: Repository, tmp_path: Path, how: str) -> None:
    getattr(repository, how)["org/example/two/1/two-1.jar"] = 1
    jars = artifacts.fetch(["kafka"], _settings(repository, tmp_path))["kafka"]
    assert jars[1].read_bytes() == JARS["org/example/two/1/two-1.jar"]
    assert repository.asked["org/example/two/1/two-1.jar"] == 2


def test_a_jar_that_stays_wrong_is_never_used(repository: Repository, tmp_path: Path) -> None:
    repository.wrong["org/example/two/1/two-1.jar"] = 99
    with pytest.raises(StackError, match=r"two-1\.jar could not be had .* not what the lock file says"):
        artifacts.fetch(["kafka"], _settings(repository, tmp_path))
    assert not (tmp_path / "cache/org/example/two/1/two-1.jar").exists()
    assert not list((tmp_path / "cache").rglob("tmp*"))


def test_the_error_names_jar_reason_and_settings_but_no_credentials(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(JARS, "org/example/two/1/two-1.jar")
    with pytest.raises(StackError) as caught:
        artifacts.fetch(["kafka"], _settings(repository, tmp_path, login="me:hidden-word@"))
    text = str(caught.value)
    assert text.startswith(f"org/example/two/1/two-1.jar could not be had from http://{repository.address}: ")
    assert "it answered 404" in text
    assert "CARTORAY_STACK_MAVEN_REPOSITORY" in text
    assert "CARTORAY_STACK_CACHE_DIR" in text
    assert "hidden-word" not in text


def test_no_connection_is_an_error_too(repository: Repository, tmp_path: Path) -> None:
    settings = _settings(repository, tmp_path)
    repository.server.shutdown()
    repository.server.server_close()
    with pytest.raises(StackError, match="no connection"):
        artifacts.fetch(["neo4j"], settings)


def test_a_cache_that_cannot_be_written_names_the_setting(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(StackError, match="CARTORAY_STACK_CACHE_DIR"):
        artifacts.fetch(["kafka"], _settings(repository, tmp_path))


@pytest.mark.parametrize(("server", "main"), [("kafka", "kafka_2.13-4."), ("neo4j", "neo4j-20")])
def test_the_lock_files_name_each_jar_once_by_its_sum(server: str, main: str) -> None:
    lines = [line for line in artifacts.lock_file(server).read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w./+-]+\.jar sha256:[0-9a-f]{64}", line) for line in lines)
    names = [line.split()[0] for line in lines]
    assert names == sorted(set(names))
    assert any(name.rpartition("/")[2].startswith(main) for name in names)
    assert not any("test" in name.rpartition("/")[2] or "junit" in name for name in names)
