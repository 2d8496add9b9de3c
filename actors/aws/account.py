"""The account itself and its root principal: what every other row hangs on.

Source: sts:GetCallerIdentity. Stock: `cartography.intel.aws.organizations.sync` (`load_aws_accounts`).
"""

from __future__ import annotations

from cartography.models.aws.account import AWSAccountSchema
from cartography.models.aws.iam.root_principal import AWSRootPrincipalSchema

from actors.modules import Call, Item, NativeModule, Place, Shaped, Table, check_account
from cartoray.planning import ACCOUNT_MODULE


def _shape(items: list[Item], place: Place) -> Shaped:
    """Raises CloudDenied when the credentials turn out to be another account's."""
    identity = items[0]
    check_account(identity["Account"], place.account.id)
    partition = identity["Arn"].split(":")[1]
    return {
        AWSAccountSchema: [
            {"id": place.account.id, "name": place.account.name or place.account.id, "foreign": None},
        ],
        AWSRootPrincipalSchema: [{"arn": f"arn:{partition}:iam::{place.account.id}:root"}],
    }


MODULE = NativeModule(
    name=ACCOUNT_MODULE,
    permissions=("sts:GetCallerIdentity",),
    fetch=Call("sts", "get_caller_identity", None),
    shape=_shape,
    tables=(Table(AWSAccountSchema, extra={"inscope": True}), Table(AWSRootPrincipalSchema)),
    regional=False,
)
