"""A native module's extraction from the simulated AWS, without Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors.aws.clients import AwsCloud
from actors.extraction import Extracted, Extraction, Publish
from actors.modules import modules
from cartoray.jobs import Account, Job
from cartoray.stack.simulated_aws import SimulatedAws


def lead_to(aws: SimulatedAws, environment: pytest.MonkeyPatch, absent: Path) -> None:
    """The environment leads there, and to no credentials of the person who runs this: `absent` is no file."""
    for name, value in aws.environment().items():
        environment.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        environment.setenv(name, str(absent))


def extract(
    name: str,
    publish: Publish,
    *,
    account: Account,
    role_name: str,
    cloud: AwsCloud,
    threads: ThreadPoolExecutor,
    update_tag: int = 1,
    regions: Sequence[str] = (),
) -> Extracted:
    """Runs one module to its end; without regions in all that the account has."""
    job = Job(
        run_id="run",
        update_tag=update_tag,
        account=account,
        module=name,
        regions=tuple(regions),
        role_name=role_name,
    )
    extraction = Extraction(
        job, modules()[name], attempt="attempt", cloud=cloud, calls=threads, check=lambda: None, bytes_max=900_000
    )
    extraction.run(publish)
    return extraction.found
