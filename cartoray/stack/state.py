"""The state folder of the embedded stack: what runs, on which ports, with which password.

    <state>/                mode 0700
      stack.json            mode 0600  the servers that were started (StackState)
      settings.json         mode 0600  their addresses, for the settings of other commands; only while the stack is up
      lock                  held by the one `up` or `down` at work
      logs/<server>.log     what a server printed
      <server>/             its configuration and its data

A process is known by its id together with the time it was created: an id that the system has given to another
process since then is never taken for a server of ours, nor signalled.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cartoray.errors import StackError

_OURS = ("stack.json", "settings.json", "lock", ".gitignore", "logs", "kafka", "neo4j", "simulated-aws")


class ServerRecord(BaseModel):
    """A server as it was last started."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pid: int | None = Field(None, description="none: it was stopped, and its ports are kept for the next start")
    create_time: float = Field(0.0, description="of the process, seconds since 1970, as psutil tells it")
    ports: dict[str, int] = Field(default_factory=dict, description="role (such as client) → TCP port on loopback")
    started: bool = Field(False, description="it was ready once since this process began")
    arguments: list[str] = Field(default_factory=list, description="that the user chose; others mean a restart")


class StackState(BaseModel):
    """Content of stack.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    servers: dict[str, ServerRecord] = Field(default_factory=dict)
    neo4j_password: str = Field(default_factory=lambda: secrets.token_urlsafe(24))


@dataclass(frozen=True)
class StateFolder:
    """Reads and writes the state folder at `path`. Files appear whole: written beside, then renamed."""

    path: Path

    @property
    def settings_file(self) -> Path:
        return self.path / "settings.json"

    @property
    def state_file(self) -> Path:
        return self.path / "stack.json"

    def log_file(self, server: str) -> Path:
        return self.path / "logs" / f"{server}.log"

    def home(self, server: str) -> Path:
        return self.path / server

    def exists(self) -> bool:
        """Whether a stack was ever started here."""
        return self.state_file.exists()

    def create(self) -> None:
        """Make the folder, closed to other users. Raises StackError when that cannot be."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            foreign = not self.exists() and any(entry.name not in _OURS for entry in self.path.iterdir())
            if stat.S_IMODE(self.path.stat().st_mode) != 0o700 and not foreign:
                self.path.chmod(0o700)
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
            (self.path / ".gitignore").write_text("*\n")  # the password must not be committed by a careless `git add`
        except OSError as error:
            raise StackError(
                f"The state folder {self.path} cannot be made: {error.strerror}. "
                "Name another one with CARTORAY_STACK_STATE_DIR."
            ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder: two `cartoray up` at once would start everything twice. Raises StackError if it is held."""
        with (self.path / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StackError(
                    f"Another `cartoray up` or `cartoray down` is at work in {self.path}. Wait for it, then try again."
                ) from None
            yield

    def read(self) -> StackState:
        """The state as last written; a new one where there is none.

        Raises StackError when stack.json cannot be understood: guessing could leave servers behind.
        """
        try:
            return StackState.model_validate_json(self.state_file.read_bytes())
        except FileNotFoundError:
            return StackState()
        except (ValidationError, OSError):
            raise StackError(
                f"{self.state_file} cannot be read. Stop what still runs from {self.path} by hand, then remove it."
            ) from None

    def write(self, state: StackState) -> None:
        _write_private(self.state_file, state.model_dump_json(indent=2))

    def write_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        _write_private(self.settings_file, json.dumps(settings, indent=2))

    def remove_settings(self) -> None:
        self.settings_file.unlink(missing_ok=True)

    def wipe(self) -> list[str]:
        """Remove everything the stack wrote; answers the names of other entries, which stay.

        Nothing else is touched: CARTORAY_STACK_STATE_DIR may name a folder that has more in it than this.
        """
        if not self.path.is_dir():
            return []
        for name in _OURS:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
        left = sorted(entry.name for entry in self.path.iterdir())
        if not left:
            self.path.rmdir()
        return left


def _write_private(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
