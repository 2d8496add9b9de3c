"""S3 buckets with their policies, ACLs, encryption and other settings, and the topics that they notify.

Source: s3:ListBuckets, and of each bucket, in its region, GetBucketAcl, GetBucketPolicy, GetBucketEncryption,
GetBucketVersioning, GetPublicAccessBlock, GetBucketOwnershipControls, GetBucketLogging and
GetBucketNotificationConfiguration. Stock: `cartography.intel.aws.s3.sync`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cartography.models.aws.s3.acl import S3AclSchema
from cartography.models.aws.s3.bucket import (
    S3BucketEncryptionSchema,
    S3BucketLoggingSchema,
    S3BucketOwnershipSchema,
    S3BucketPolicySchema,
    S3BucketPublicAccessBlockSchema,
    S3BucketSchema,
    S3BucketVersioningSchema,
)
from cartography.models.aws.s3.notification import S3BucketToSNSTopicRel
from cartography.models.aws.s3.policy_statement import S3PolicyStatementSchema

from actors.cloud import RegionNotEnabled
from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Shaped, Table
from actors.transforms import Transform
from cartoray.errors import CloudDenied, CloudUnavailable

get_partition = Transform("aws.util.arns:get_partition")
fetch_failed = Transform("aws.s3:_FetchFailed")
merge_bucket_details = Transform("aws.s3:_merge_bucket_details")
parse_notification_configuration = Transform("aws.s3:parse_notification_configuration")

# with a page size AWS tells each bucket's region as well
LIST_BUCKETS = Call("s3", "list_buckets", "Buckets", page_size=1000)
HEAD_BUCKET = Call("s3", "head_bucket", None)
GET_ACL = Call("s3", "get_bucket_acl", None)
GET_POLICY = Call("s3", "get_bucket_policy", None, absent=("NoSuchBucketPolicy",))
GET_ENCRYPTION = Call("s3", "get_bucket_encryption", None, absent=("ServerSideEncryptionConfigurationNotFoundError",))
GET_VERSIONING = Call("s3", "get_bucket_versioning", None)
GET_PUBLIC_ACCESS_BLOCK = Call("s3", "get_public_access_block", None, absent=("NoSuchPublicAccessBlockConfiguration",))
GET_OWNERSHIP = Call("s3", "get_bucket_ownership_controls", None, absent=("OwnershipControlsNotFoundError",))
GET_LOGGING = Call("s3", "get_bucket_logging", None)
GET_NOTIFICATIONS = Call("s3", "get_bucket_notification_configuration", None)

_DETAILS = (  # in the order in which stock's function takes them
    GET_ACL,
    GET_POLICY,
    GET_ENCRYPTION,
    GET_VERSIONING,
    GET_PUBLIC_ACCESS_BLOCK,
    GET_OWNERSHIP,
    GET_LOGGING,
)


class _Unknown:
    """In place of an answer that AWS refused or could not give: None is one that says that there is nothing."""


UNKNOWN = _Unknown()


@dataclass(frozen=True)
class _Bucket:
    listed: Item  # with its Region
    details: Sequence[Any]  # answers to `_DETAILS`
    notifications: Any


async def _ask(api: Api, call: Call, name: str) -> Any:
    """The answer; None, if there is nothing of the kind.

    One bucket that is denied or out of reach does not keep the others away: as in stock, what is asked for stays as it
    is in the graph. But the job is not complete then, and cleans up nothing.
    """

    async def ask() -> Any:
        try:
            return await api.one(call, Bucket=name)
        except CloudUnavailable as error:
            raise CloudDenied(str(error)) from None

    try:
        return await api.tolerate(ask(), UNKNOWN)
    except RegionNotEnabled:  # a bucket may outlive its region: nothing more is to be had of it
        return UNKNOWN


async def _region(api: Api, bucket: Item) -> str | None:
    """None where it is unknown; then the bucket is asked about where it was listed, as in stock."""
    if "BucketRegion" in bucket:
        return str(bucket["BucketRegion"])
    head = await _ask(api, HEAD_BUCKET, bucket["Name"])
    if head is UNKNOWN:
        return None
    found: str | None = head.get("BucketRegion") or head["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return found


async def _gather(api: Api) -> list[_Bucket]:
    async def ask(bucket: Item) -> _Bucket:
        region = await _region(api, bucket)
        there = api.at(region) if region else api
        *details, notifications = await asyncio.gather(
            *(_ask(there, call, bucket["Name"]) for call in (*_DETAILS, GET_NOTIFICATIONS))
        )
        return _Bucket({**bucket, "Region": region}, details, notifications)

    return await api.each(ask, await api.items(LIST_BUCKETS))


def _shape(buckets: list[_Bucket], place: Place) -> Shaped:
    def details(bucket: _Bucket) -> tuple[Any, ...]:
        return (bucket.listed["Name"], *(fetch_failed() if each is UNKNOWN else each for each in bucket.details))

    data = merge_bucket_details(
        {"Buckets": [bucket.listed for bucket in buckets]},
        map(details, buckets),
        place.account.id,
        get_partition(place.region),
    )
    return {
        S3BucketSchema: data["base_buckets"],
        S3BucketPolicySchema: data["policy_buckets"],
        S3BucketEncryptionSchema: data["encryption_buckets"],
        S3BucketVersioningSchema: data["versioning_buckets"],
        S3BucketPublicAccessBlockSchema: data["public_access_block_buckets"],
        S3BucketOwnershipSchema: data["ownership_buckets"],
        S3BucketLoggingSchema: data["logging_buckets"],
        S3AclSchema: data["acls"],
        S3PolicyStatementSchema: data["statements"],
        S3BucketToSNSTopicRel: [
            row
            for bucket in buckets
            if bucket.notifications is not UNKNOWN
            for row in parse_notification_configuration(bucket.listed["Name"], bucket.notifications)
        ],
    }


MODULE = NativeModule(
    name="s3",
    permissions=(
        "s3:ListAllMyBuckets",
        "s3:ListBucket",
        "s3:GetBucketAcl",
        "s3:GetBucketPolicy",
        "s3:GetEncryptionConfiguration",
        "s3:GetBucketVersioning",
        "s3:GetBucketPublicAccessBlock",
        "s3:GetBucketOwnershipControls",
        "s3:GetBucketLogging",
        "s3:GetBucketNotification",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(
        Table(S3BucketSchema),
        Table(S3BucketPolicySchema),
        Table(S3BucketEncryptionSchema),
        Table(S3BucketVersioningSchema),
        Table(S3BucketPublicAccessBlockSchema),
        Table(S3BucketOwnershipSchema),
        Table(S3BucketLoggingSchema),
        Table(S3AclSchema),
        Table(S3PolicyStatementSchema),
        Table(S3BucketToSNSTopicRel, extra={"_sub_resource_label": "AWSS3Bucket"}, by={"_sub_resource_id": "bucket"}),
    ),
    cleanup=(
        Cleanup(S3BucketSchema),
        Cleanup(S3BucketEncryptionSchema),
        Cleanup(S3AclSchema),
        Cleanup(S3PolicyStatementSchema),
        Cleanup(S3BucketToSNSTopicRel, of="AWSS3Bucket"),
    ),
    regional=False,
    # of the buckets' exposure by their policies it leaves `_ont_public` alone, and sets the rest by their ACLs
    analyses=("cartography.analysis.aws.s3.analysis:AWS_S3ACL_ANALYSIS",),
    marks=("AWSS3Bucket",),
)
