"""The jars of Kafka and Neo4j: which (the lock files beside this one), from where, and whether they are unharmed.

A lock file has a line per jar, `<path in a Maven repository> <sha256:hex>`, written by `tools/lock_artifacts.py`.
No jar is used whose content differs from its line, wherever it came from. All are read and compared at every start,
which takes 0.2 s for the 200 MB (measured on 2 cores): less than a record of what was checked would be worth.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cartoray.errors import StackError
from cartoray.settings import StackSettings

RETRIES = 3  # with 1, 2 and 3 s between them: a registry's hiccup, not its outage
TIMEOUT_S = 30  # without a byte
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Progress:
    """How far the download is: jars in place of all, and bytes that came over the network."""

    jars_done: int
    jars_total: int
    bytes_downloaded: int
    finished: bool


def lock_file(server: str) -> Path:
    """The lock file of `server` (kafka or neo4j)."""
    return Path(__file__).with_name(f"{server}.lock")


def repository_url(settings: StackSettings) -> str:
    """Base URL that jars are fetched from, without a slash at its end."""
    if settings.maven_repository:
        return settings.maven_repository.rstrip("/")
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415 - 0.2 s of imports that only a download needs

    return str(MAVEN_CENTRAL_URL)


def cache_dir(settings: StackSettings) -> Path:
    """Folder of the verified jars, in the layout of a Maven repository."""
    import pooch  # noqa: PLC0415

    return (settings.cache_dir or Path(pooch.os_cache("cartoray")) / "maven").expanduser().absolute()


def fetch(
    servers: Iterable[str],
    settings: StackSettings,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> dict[str, list[Path]]:
    """The jars of each of `servers`, in the order of its lock file, downloaded where the cache lacks or spoilt them.

    Blocks until all are there; several at once. `on_progress` is called from worker threads, one call at a time.
    Raises StackError naming a jar that could not be had, the reason, and the settings that matter.
    """
    locks = {server: lock_file(server) for server in servers}
    store = _Store(cache_dir(settings), repository_url(settings))
    names = {server: store.load(lock) for server, lock in locks.items()}
    store.fetch(sorted({name for jars in names.values() for name in jars}), settings.downloads_parallel, on_progress)
    return {server: [store.folder / name for name in jars] for server, jars in names.items()}


class _Store:
    """A pooch over the jars of several lock files."""

    def __init__(self, folder: Path, url: str) -> None:
        import pooch  # noqa: PLC0415

        pooch.get_logger().setLevel(logging.WARNING)  # it prints a line per file
        self.folder = folder
        self._url = url
        self._pooch = pooch.create(path=folder, base_url=f"{url}/", registry={}, retry_if_failed=RETRIES)
        self._downloader = pooch.HTTPDownloader(chunk_size=CHUNK_BYTES, timeout=TIMEOUT_S)
        self._lock = threading.Lock()
        self._done = 0
        self._bytes = 0

    def load(self, lock: Path) -> list[str]:
        """The names in `lock`, which may share some with other lock files."""
        import pooch  # noqa: PLC0415

        reader = pooch.create(path=self.folder, base_url="", registry={})
        reader.load_registry(lock)
        self._pooch.registry.update(reader.registry)
        return list(reader.registry_files)

    def fetch(self, names: Sequence[str], parallel: int, on_progress: Callable[[Progress], None]) -> None:
        try:
            for parent in {(self.folder / name).parent for name in names}:
                parent.mkdir(parents=True, exist_ok=True)  # here, since pooch's threads would race for shared ones
        except OSError as error:
            raise StackError(
                f"The folder for jars, {self.folder}, cannot be written: {error.strerror}. "
                "Name another one with CARTORAY_STACK_CACHE_DIR."
            ) from None
        with ThreadPoolExecutor(parallel, thread_name_prefix="download") as pool:
            futures = {pool.submit(self._fetch_one, name, len(names), on_progress): name for name in names}
            try:
                for future in as_completed(futures):
                    self._check(futures[future], future, len(names))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # leaving the block waits for those under way
                raise

    def _fetch_one(self, name: str, total: int, on_progress: Callable[[Progress], None]) -> None:
        downloaded = 0

        def download(url: str, output_file: str, store: object) -> None:
            nonlocal downloaded
            self._downloader(url, output_file, store)
            downloaded += Path(output_file).stat().st_size

        self._pooch.fetch(name, downloader=download)
        with self._lock:
            self._done += 1
            self._bytes += downloaded
            on_progress(Progress(self._done, total, self._bytes, finished=self._done == total))

    def _check(self, name: str, future: Future[None], total: int) -> None:
        import requests  # noqa: PLC0415

        try:
            future.result()
            return
        except requests.HTTPError as error:
            reason = f"it answered {error.response.status_code}"
        except requests.Timeout:
            reason = f"no answer within {TIMEOUT_S} s"
        except requests.RequestException as error:
            reason = f"no connection ({type(error).__name__})"  # its text may hold a URL with credentials
        except ValueError:
            reason = f"its content is not what the lock file says, {1 + RETRIES} times"
        except OSError as error:
            reason = f"{self.folder} cannot be written: {error.strerror}"
        raise StackError(
            f"{name} could not be had from {without_credentials(self._url)}: {reason}. "
            f"{self._done} of {total} jars are in {self.folder} and will not be fetched again. "
            "CARTORAY_STACK_MAVEN_REPOSITORY names another Maven repository, CARTORAY_STACK_CACHE_DIR a folder that "
            "has the jars already."
        )


def without_credentials(url: str) -> str:
    """`url` without the user and password that may stand before its host."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
