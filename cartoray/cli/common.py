"""What several commands share."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from cartoray.settings import Settings, load

JsonOption = Annotated[bool, typer.Option("--json", help="machine-readable results on stdout, and nothing else there")]

progress_console = Console(stderr=True)  # stdout is for results
result_console = Console()


def settings() -> Settings:
    """The settings in force in the working directory. Raises SettingError."""
    return load().settings


def use_simulated_aws(settings: Settings) -> bool:
    """Points boto3, here and in child processes, at the simulated AWS of the embedded stack, if it is up.

    An AWS_ENDPOINT_URL of the user's goes before. The credentials are replaced as well: real ones are never sent to
    the simulated AWS.
    """
    endpoint = settings.simulated_aws.endpoint_url
    if endpoint is None or os.environ.get("AWS_ENDPOINT_URL") not in (None, endpoint):
        return False
    os.environ.update(
        AWS_ENDPOINT_URL=endpoint,
        AWS_ACCESS_KEY_ID="testing",
        AWS_SECRET_ACCESS_KEY="testing",
        AWS_DEFAULT_REGION=settings.aws.default_region,
    )
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"):
        os.environ.pop(name, None)
    return True
