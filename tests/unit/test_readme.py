"""What the README says is what the code declares."""

from __future__ import annotations

import json
import re
from pathlib import Path

from actors.modules import modules
from actors.policies import reading

README = Path(__file__).parents[2] / "README.md"


def test_the_policy_that_it_shows_is_the_one_of_its_scope() -> None:
    ((scope, policy),) = re.findall(
        r"`--scope (\S+)`, as an example.*?```json\n(.*?)```", README.read_text(), re.DOTALL
    )
    assert json.loads(policy) == reading(modules()[name] for name in ("account", *scope.split(",")))
