"""`cartoray serve` with the members of `faults.points`."""

from __future__ import annotations

import sys

from faults.points import IngestionActor, IntelActor

import cartoray.cluster.driver
from cartoray.cli.main import main

if __name__ == "__main__":
    cartoray.cluster.driver.IntelActor = IntelActor  # type: ignore[misc]
    cartoray.cluster.driver.IngestionActor = IngestionActor  # type: ignore[misc]
    sys.exit(main())
