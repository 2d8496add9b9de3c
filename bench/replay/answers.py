"""Answers that are made up: who somebody is, how to become somebody, and which accounts there are.

Pure. An access key has its account in it, so the server remembers nobody.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from bench.replay.connections import response
from cartoray.stack.simulated_aws_protocol import MANAGEMENT_ACCOUNT, Call

SESSION_S = 3600
_PAGE = 20  # accounts; AWS's maximum
_ROLE = re.compile(r"arn:[^:]*:iam::(\d{12}):role/(?:.*/)?([^/]+)")
_XML, _JSON = (("Content-Type", "text/xml"),), (("Content-Type", "application/x-amz-json-1.1"),)


def access_key(account: str) -> str:
    """An access key id of the account, as AWS makes them: `account_of_key` finds it again."""
    number = int(account)
    encoded = base64.b32encode((number // 2 + (1 << 39)).to_bytes(5, "big")).decode()
    return f"ASIA{encoded}{'Q' if number % 2 else 'A'}REPLAYS"


def sts(call: Call, now_s: float) -> bytes | None:
    """The answer to AssumeRole (any role of any account) and GetCallerIdentity; None for what else STS has."""
    if call.operation == "AssumeRole" and (role := _ROLE.fullmatch(call.parameters.get("RoleArn", ""))):
        account, name = role.groups()
        session = call.parameters.get("RoleSessionName", "session")
        expires = datetime.fromtimestamp(now_s + SESSION_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        result = (
            f"<Credentials><AccessKeyId>{access_key(account)}</AccessKeyId><SecretAccessKey>replay</SecretAccessKey>"
            f"<SessionToken>replay</SessionToken><Expiration>{expires}</Expiration></Credentials><AssumedRoleUser>"
            f"<Arn>arn:aws:sts::{account}:assumed-role/{name}/{session}</Arn>"
            f"<AssumedRoleId>AROAREPLAY:{session}</AssumedRoleId></AssumedRoleUser>"
        )
    elif call.operation == "GetCallerIdentity":
        arn = f"arn:aws:sts::{call.account}:assumed-role/replay/session"
        result = f"<Arn>{arn}</Arn><UserId>AROAREPLAY:session</UserId><Account>{call.account}</Account>"
    else:
        return None
    name = call.operation
    xml = (
        f'<{name}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{name}Result>{result}</{name}Result>'
        f"<ResponseMetadata><RequestId>replay</RequestId></ResponseMetadata></{name}Response>"
    )
    return response(200, _XML, xml.encode())


def list_accounts(accounts: Sequence[str], body: bytes) -> bytes:
    """A page of organizations:ListAccounts."""
    start = int(json.loads(body or b"{}").get("NextToken", 0))
    page = [
        {
            "Id": account,
            "Arn": f"arn:aws:organizations::{MANAGEMENT_ACCOUNT}:account/o-replay/{account}",
            "Email": f"{account}@simulated.example",
            "Name": f"team-{account}",
            "Status": "ACTIVE",
            "State": "ACTIVE",
        }
        for account in accounts[start : start + _PAGE]
    ]
    answer: dict[str, object] = {"Accounts": page}
    if start + _PAGE < len(accounts):
        answer["NextToken"] = str(start + _PAGE)
    return response(200, _JSON, json.dumps(answer).encode())
