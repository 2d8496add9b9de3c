"""What the README says is what the code declares."""

from __future__ import annotations

import json
import re
from pathlib import Path

from actors.modules import modules

README = Path(__file__).parents[2] / "README.md"


def test_the_policy_allows_what_the_modules_need_and_no_more() -> None:
    (policy,) = re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)
    (statement,) = json.loads(policy)["Statement"]
    assert statement["Action"] == sorted({action for module in modules().values() for action in module.permissions})
