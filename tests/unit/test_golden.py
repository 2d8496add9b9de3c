"""What an older release has put on a topic is read for what it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import golden

from cartoray.jobs import FORMAT_VERSION

FILES = sorted(golden.FOLDER.glob("messages-*.json"))
PRESENT = golden.FOLDER / f"messages-{FORMAT_VERSION}.json"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_messages_of_every_version_say_what_they_said(path: Path) -> None:
    for name, (message, means) in golden.read(path).items():
        assert golden.meaning(message) == means, name


def test_the_present_version_has_a_message_of_each_kind() -> None:
    assert golden.read(PRESENT).keys() == {name for name, _ in golden.chosen()}


def test_what_a_file_has_is_not_written_again(tmp_path: Path) -> None:
    name, *others = (content := json.loads(PRESENT.read_text()))
    changed = {name: content[name] | {"means": "something else"}}
    (tmp_path / "messages.json").write_text(json.dumps(changed))
    golden.write(tmp_path / "messages.json")
    written = json.loads((tmp_path / "messages.json").read_text())
    assert written[name] == changed[name]
    assert written.keys() == {name, *others}
