"""`cartoray iam-policy`: what to allow in AWS, and no more."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.markup import escape

from cartoray.cli.common import progress_console, settings
from cartoray.cli.sync import RoleOption, ScopeOption, WrappedOption, listed
from cartoray.errors import UsageError
from cartoray.planning import chosen_modules
from cartoray.settings import AwsSettings, variable

_SHOWN_MAX = 5
PLACEHOLDER = "<the external ID>"
_PRINCIPAL = r"^(arn:aws[a-z-]*:(iam|sts)::\d{12}:[\w+=,.@:/-]+|\d{12})$"


def register(app: typer.Typer) -> None:
    app.command()(iam_policy)


def iam_policy(
    scope: ScopeOption = None,
    wrapped: WrappedOption = False,
    workers: Annotated[
        bool, typer.Option("--workers", help="instead, the policy of whom the workers run as: assuming that role")
    ] = False,
    trust: Annotated[
        str | None,
        typer.Option(
            "--trust", metavar="ARN", help="instead, the trust policy of that role: this principal may assume it"
        ),
    ] = None,
    role_name: RoleOption = None,
    show_external_id: Annotated[
        bool,
        typer.Option(
            "--show-external-id",
            help="with --trust: print CARTORAY_AWS_EXTERNAL_ID, a secret, where else a placeholder stands",
        ),
    ] = False,
) -> None:
    """The least that IAM must allow for a sync of the same --scope, as JSON for `aws iam`. Asks nobody anything.

    Three policies make a sync of many accounts possible. Of the role in each account, what it may read and who may
    assume it; of the workers, that they may assume it:

        cartoray iam-policy --scope native > read.json
        cartoray iam-policy --trust arn:aws:iam::111122223333:role/cartoray > trust.json
        cartoray iam-policy --workers --role-name CartographyReadOnly > workers.json

    Modules that are not native run Cartography's own code, which declares no permissions: for these standard error
    says which policies of AWS's Cartography asks for.
    """
    config = settings().aws
    if workers and trust is not None:
        raise UsageError("--workers and --trust are two policies; ask for one after the other.")
    if show_external_id and (trust is None or config.external_id is None):
        raise UsageError(f"--show-external-id is for --trust, where {variable('aws', 'external_id')} is set.")
    from actors.policies import assuming, trusting

    if workers:
        role = role_name or config.role_name
        if role is None:
            raise UsageError(f"Which role? Give --role-name NAME or set {variable('aws', 'role_name')}.")
        policy = assuming(role, config.partition)
    elif trust is not None:
        policy = trusting(_principal(trust), _external_id(config, shown=show_external_id))
    else:
        policy = _reading(listed(scope), wrapped=wrapped)
    print(json.dumps(policy, indent=2))


def _principal(text: str) -> str:
    if not re.match(_PRINCIPAL, text):
        raise UsageError(
            f"--trust is {text!r}; it takes one principal: arn:aws:iam::111122223333:role/NAME, or an account's ID."
        )
    return text


def _external_id(config: AwsSettings, *, shown: bool) -> str | None:
    """Only where workers send one: a role that asks for it would refuse them else."""
    if config.external_id is None:
        return None
    if not shown:
        _tell(f"Put {variable('aws', 'external_id')} for {PLACEHOLDER!r}, or print it by --show-external-id.")
        return PLACEHOLDER
    return config.external_id.get_secret_value()


def _reading(scope: tuple[str, ...], *, wrapped: bool) -> dict[str, object]:
    from actors.catalogue import catalogue
    from actors.modules import NativeModule
    from actors.policies import reading

    known = catalogue("aws", wrapped=wrapped)
    found = [known[name] for name in chosen_modules(scope, known)]
    # those over the graph alone ask AWS nothing
    others = [module.name for module in found if module.wrapped and not module.name.startswith("analysis:")]
    if others:
        _tell(_of_cartography(others))
    return reading(module for module in found if isinstance(module, NativeModule))


def _of_cartography(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_MAX]) + (", …" if len(names) > _SHOWN_MAX else "")
    return (
        f"{len(names)} modules of this scope are not native ({shown}). For them attach AWS's own policy as well, as "
        "Cartography asks for: arn:aws:iam::aws:policy/SecurityAudit. What that lacks stands in Cartography's "
        "documentation of AWS, under permissions."
    )


def _tell(text: str) -> None:
    progress_console.print(escape(text), highlight=False, soft_wrap=True)
