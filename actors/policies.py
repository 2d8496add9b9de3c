"""IAM policies that a sync needs, as JSON documents: what its modules declare, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actors.modules import NativeModule

VERSION = "2012-10-17"  # of the policy language; the only one that is not outdated
Policy = dict[str, Any]


def reading(modules: Iterable[NativeModule]) -> Policy:
    """Of the role that is assumed in each account: the actions of these native modules, sorted.

    Nearly all are listings, which IAM cannot bind to a resource.
    """
    actions = sorted({action for module in modules for action in module.permissions})
    return _document({"Effect": "Allow", "Action": actions, "Resource": "*"})


def assuming(role_name: str, partition: str) -> Policy:
    """Of whom the workers run as: that role, in whichever account trusts them.

    The second statement is for whoever calls `cartoray sync --organization`.
    """
    role = f"arn:{partition}:iam::*:role/{role_name}"
    return _document(
        {"Sid": "Workers", "Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role},
        {"Sid": "SyncOrganization", "Effect": "Allow", "Action": "organizations:ListAccounts", "Resource": "*"},
    )


def trusting(principal: str, external_id: str | None) -> Policy:
    """Of the role that is assumed in each account: `principal` alone may do so, with the external ID if any."""
    condition = {"Condition": {"StringEquals": {"sts:ExternalId": external_id}}} if external_id is not None else {}
    return _document({"Effect": "Allow", "Principal": {"AWS": principal}, "Action": "sts:AssumeRole", **condition})


def _document(*statements: dict[str, Any]) -> Policy:
    return {"Version": VERSION, "Statement": list(statements)}
