from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cartoray.errors import StackError
from cartoray.stack.state import ServerRecord, StackState, StateFolder


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    folder = StateFolder(tmp_path / "state")
    folder.create()
    return folder


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_others_can_read_nothing(folder: StateFolder) -> None:
    folder.write(StackState())
    folder.write_settings({"neo4j": {"password": "p"}})
    assert _mode(folder.path) == 0o700
    assert _mode(folder.state_file) == _mode(folder.settings_file) == 0o600


def test_a_folder_that_was_open_is_closed_but_not_one_with_other_things_in_it(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir(mode=0o755)
    StateFolder(tmp_path / "ours").create()
    assert _mode(tmp_path / "ours") == 0o700
    (tmp_path / "home" / "documents").mkdir(parents=True, mode=0o755)
    (tmp_path / "home").chmod(0o755)
    StateFolder(tmp_path / "home").create()
    assert _mode(tmp_path / "home") == 0o755


def test_git_does_not_see_the_password(folder: StateFolder) -> None:
    assert (folder.path / ".gitignore").read_text() == "*\n"


def test_state_is_read_as_written(folder: StateFolder) -> None:
    record = ServerRecord(name="kafka", pid=4711, create_time=1.5, ports={"client": 9092}, started=True)
    state = StackState(servers={"kafka": record})
    folder.write(state)
    assert folder.read() == state
    assert [path.name for path in folder.path.iterdir() if "stack" in path.name] == ["stack.json"]


def test_each_new_stack_has_a_password_of_its_own(folder: StateFolder) -> None:
    first, second = folder.read().neo4j_password, folder.read().neo4j_password
    assert first != second
    assert len(first) >= 32


def test_a_damaged_state_is_an_error_that_does_not_print_it(folder: StateFolder) -> None:
    folder.state_file.write_text(json.dumps({"neo4j_password": "hidden-word", "servers": 3}))
    with pytest.raises(StackError, match="cannot be read") as caught:
        folder.read()
    assert "hidden-word" not in str(caught.value)


def test_two_cannot_be_at_work_at_once(folder: StateFolder) -> None:
    with folder.locked(), pytest.raises(StackError, match="Another"), StateFolder(folder.path).locked():
        pass
    with folder.locked():
        pass


def test_wipe_leaves_nothing_of_ours_and_all_of_others(folder: StateFolder) -> None:
    folder.write(StackState())
    (folder.home("kafka") / "data").mkdir(parents=True)
    (folder.path / "thesis.txt").write_text("mine")
    assert folder.wipe() == ["thesis.txt"]
    (folder.path / "thesis.txt").unlink()
    assert folder.wipe() == []
    assert not folder.path.exists()


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="CARTORAY_STACK_STATE_DIR"):
        StateFolder(tmp_path / "file" / "state").create()
