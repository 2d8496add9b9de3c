"""KMS keys with their policies, aliases and grants.

Source: kms:ListKeys, and of each key DescribeKey, GetKeyPolicy, ListAliases and ListGrants. Stock:
`cartography.intel.aws.kms.sync`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cartography.models.aws.kms.aliases import KMSAliasSchema
from cartography.models.aws.kms.grants import KMSGrantSchema
from cartography.models.aws.kms.keys import KMSKeySchema

from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform

transform_kms_key_policies = Transform("aws.kms:transform_kms_key_policies")
transform_kms_keys = Transform("aws.kms:transform_kms_keys")
transform_kms_aliases = Transform("aws.kms:transform_kms_aliases")
transform_kms_grants = Transform("aws.kms:transform_kms_grants")

LIST_KEYS = Call("kms", "list_keys", "Keys", page_size=1000)
DESCRIBE_KEY = Call("kms", "describe_key", "KeyMetadata")
# a key's own policy may keep everybody out, and then stock does without it: its properties are null
GET_KEY_POLICY = Call("kms", "get_key_policy", None, absent=("AccessDeniedException",))
LIST_ALIASES = Call("kms", "list_aliases", "Aliases", page_size=100)
LIST_GRANTS = Call("kms", "list_grants", "Grants", page_size=100)


@dataclass(frozen=True)
class _Key:
    described: Item
    policy: Item | None
    aliases: list[Item]
    grants: list[Item]


async def _gather(api: Api) -> list[_Key]:
    async def ask(listed: Item) -> _Key | None:
        key_id = listed["KeyId"]
        described = await api.tolerate(api.one(DESCRIBE_KEY, KeyId=key_id), None)
        if described is None:
            return None
        policy, aliases, grants = await asyncio.gather(
            api.one(GET_KEY_POLICY, KeyId=key_id, PolicyName="default"),
            api.tolerate(api.items(LIST_ALIASES, KeyId=key_id), []),
            api.tolerate(api.items(LIST_GRANTS, KeyId=key_id), []),
        )
        return _Key(described, policy, aliases, grants)

    return [key for key in await api.each(ask, await api.items(LIST_KEYS)) if key is not None]


def _shape(keys: list[_Key], _: Place) -> Shaped:
    policies = transform_kms_key_policies([(key.described["KeyId"], key.policy) for key in keys])
    return {
        KMSKeySchema: transform_kms_keys([key.described for key in keys], policies),
        KMSAliasSchema: transform_kms_aliases([alias for key in keys for alias in key.aliases]),
        KMSGrantSchema: transform_kms_grants([grant for key in keys for grant in key.grants]),
    }


MODULE = NativeModule(
    name="kms",
    permissions=(
        "kms:ListKeys",
        "kms:DescribeKey",
        "kms:GetKeyPolicy",
        "kms:ListAliases",
        "kms:ListGrants",
        "ec2:DescribeRegions",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(Table(KMSKeySchema), Table(KMSAliasSchema), Table(KMSGrantSchema)),
    cleanup=(Cleanup(KMSGrantSchema), Cleanup(KMSAliasSchema), Cleanup(KMSKeySchema)),
)
