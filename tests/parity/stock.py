"""Stock Cartography, the pinned release, as its users run it: its command, sequential, its own writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cartoray.settings import Neo4jSettings
from cartoray.stack.simulated_aws import SimulatedAws

TIMEOUT_S = 600
_TROUBLE = re.compile(r"^(ERROR|CRITICAL):|^Traceback", re.MULTILINE)


def sync(
    neo4j: Neo4jSettings,
    aws: SimulatedAws,
    *,
    accounts: Mapping[str, str],
    modules: Sequence[str],
    regions: Sequence[str],
    update_tag: int,
    folder: Path,
) -> None:
    """One sync of `accounts` (ID → name). Fails with its log if it ends with an error or logs one.

    Stock takes an account's name from the profile, so there is a profile for each in a configuration in `folder`.
    """
    config = folder / "aws-config"
    config.write_text(profiles(aws, accounts))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {
        "AWS_CONFIG_FILE": str(config),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_ENDPOINT_URL": aws.endpoint_url,
        "AWS_DEFAULT_REGION": regions[0],
        "AWS_EC2_METADATA_DISABLED": "true",
        "STOCK_PASSWORD": neo4j.password.get_secret_value(),
    }
    command = [sys.executable, "-m", "cartography", "--selected-modules", "aws", "--update-tag", str(update_tag)]
    command += ["--neo4j-uri", neo4j.uri, "--neo4j-user", neo4j.user, "--neo4j-password-env-var", "STOCK_PASSWORD"]
    command += ["--neo4j-database", neo4j.database, "--aws-sync-all-profiles"]
    command += ["--aws-requested-syncs", ",".join(modules), "--aws-regions", ",".join(regions)]
    done = subprocess.run(
        command, env=environment, cwd=folder, timeout=TIMEOUT_S, capture_output=True, text=True, check=False
    )
    log = done.stdout + done.stderr
    assert done.returncode == 0, f"stock Cartography ended with {done.returncode}:\n{log}"
    assert not _TROUBLE.search(log), f"stock Cartography logged an error:\n{log}"
    assert f"Syncing AWS accounts: {', '.join(accounts)}" in log, f"stock Cartography synced other accounts:\n{log}"


def profiles(aws: SimulatedAws, accounts: Mapping[str, str]) -> str:
    """An AWS configuration with a profile for each account (ID → name), which stock takes for the account's name."""
    base = ["[default]", "aws_access_key_id = testing", "aws_secret_access_key = testing", ""]
    members = [
        f"[profile {name}]\nrole_arn = {aws.role_arn(account)}\nsource_profile = default\n"
        for account, name in accounts.items()
    ]
    return "\n".join([*base, *members])
