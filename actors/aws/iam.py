"""IAM: users, groups and roles with their policies, who trusts whom, keys, MFA devices, certificates and providers.

Source: iam:GetAccountAuthorizationDetails, the listings of users, groups, roles, SAML providers and certificates,
GetAccountSummary; of each user ListMFADevices and ListAccessKeys, of each key GetAccessKeyLastUsed; and of each
principal the report of what it last accessed. Stock: `cartography.intel.aws.iam.sync`.

Stock's loads of policies stand between those of users, groups and roles. Here they come after all of these, as the last
ones do in stock, so that no relationship to a principal has to wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cartography.models.aws.iam.access_key import AccountAccessKeySchema
from cartography.models.aws.iam.account_role import AWSAccountAWSRoleSchema
from cartography.models.aws.iam.account_summary import AWSAccountSummarySchema
from cartography.models.aws.iam.federated_principal import AWSFederatedPrincipalSchema
from cartography.models.aws.iam.group import AWSGroupSchema
from cartography.models.aws.iam.inline_policy import AWSInlinePolicySchema
from cartography.models.aws.iam.managed_policy import AWSManagedPolicySchema
from cartography.models.aws.iam.mfa_device import AWSMfaDeviceSchema
from cartography.models.aws.iam.policy_statement import AWSPolicyStatementSchema
from cartography.models.aws.iam.principal_service_access import AWSPrincipalServiceAccessSchema
from cartography.models.aws.iam.role import AWSRoleSchema
from cartography.models.aws.iam.root_principal import AWSRootPrincipalSchema
from cartography.models.aws.iam.samlprovider import AWSSAMLProviderSchema
from cartography.models.aws.iam.server_certificate import AWSServerCertificateSchema
from cartography.models.aws.iam.service_principal import AWSServicePrincipalSchema
from cartography.models.aws.iam.user import AWSUserSchema

from actors.modules import Api, Call, Cleanup, Item, NativeModule, Place, Row, Shaped, Table
from actors.transforms import Transform

get_partition = Transform("aws.util.arns:get_partition")
transform_users = Transform("aws.iam:transform_users")
transform_groups = Transform("aws.iam:transform_groups")
transform_role_trust_policies = Transform("aws.iam:transform_role_trust_policies")
transform_policy_data = Transform("aws.iam:transform_policy_data")
transform_mfa_devices = Transform("aws.iam:transform_mfa_devices")
transform_access_keys = Transform("aws.iam:transform_access_keys")
transform_server_certificates = Transform("aws.iam:transform_server_certificates")
transform_account_summary = Transform("aws.iam:transform_account_summary")

_GONE = ("NoSuchEntity",)  # between two calls: it has nothing more to tell
_REPORT_LOOKS_MAX = 30
_REPORT_LOOK_EVERY_S = 2.0

# each page holds users, groups, roles and policies, so it is an item of its own
GET_AUTHORIZATION_DETAILS = Call("iam", "get_account_authorization_details", None, page_size=1000)
GET_POLICY = Call("iam", "get_policy", "Policy", absent=_GONE)
GET_POLICY_VERSION = Call("iam", "get_policy_version", "PolicyVersion", absent=_GONE)
LIST_USERS = Call("iam", "list_users", "Users", page_size=1000)
LIST_GROUPS = Call("iam", "list_groups", "Groups", page_size=1000)
LIST_ROLES = Call("iam", "list_roles", "Roles", page_size=1000)
LIST_MFA_DEVICES = Call("iam", "list_mfa_devices", "MFADevices", page_size=1000, absent=_GONE)
LIST_ACCESS_KEYS = Call("iam", "list_access_keys", "AccessKeyMetadata", page_size=1000, absent=_GONE)
GET_ACCESS_KEY_LAST_USED = Call("iam", "get_access_key_last_used", "AccessKeyLastUsed")
# not every partition has these reports, and stock does without them there
ASK_FOR_REPORT = Call(
    "iam", "generate_service_last_accessed_details", "JobId", absent=(*_GONE, "UnknownOperationException")
)
GET_REPORT = Call("iam", "get_service_last_accessed_details", None, absent=_GONE)
LIST_SAML_PROVIDERS = Call("iam", "list_saml_providers", "SAMLProviderList")
LIST_SERVER_CERTIFICATES = Call("iam", "list_server_certificates", "ServerCertificateMetadataList", page_size=1000)
GET_ACCOUNT_SUMMARY = Call("iam", "get_account_summary", "SummaryMap")

PolicyMap = dict[str, dict[str, Any]]  # ARN of the principal → name or ARN of the policy → its statements


@dataclass(frozen=True)
class _Authorizations:
    """What GetAccountAuthorizationDetails tells, and the statements of all managed policies that are attached."""

    users: list[Item]
    groups: list[Item]
    roles: list[Item]
    statements: Mapping[str, Any]

    def inline(self, principals: Iterable[Item], policies: str) -> PolicyMap:
        return {
            each["Arn"]: {one["PolicyName"]: one["PolicyDocument"]["Statement"] for one in each.get(policies, [])}
            for each in principals
        }

    def managed(self, principals: Iterable[Item]) -> PolicyMap:
        return {
            each["Arn"]: {arn: self.statements[arn] for arn in _attached(each) if arn in self.statements}
            for each in principals
        }

    def members(self) -> dict[str, list[str]]:
        """ARN of each group → those of its users."""
        arns = {group["GroupName"]: group["Arn"] for group in self.groups}
        found: dict[str, list[str]] = {arn: [] for arn in arns.values()}
        for user in self.users:
            for name in user.get("GroupList", []):
                if name in arns:
                    found[arns[name]].append(user["Arn"])
        return found


@dataclass(frozen=True)
class _Found:
    authorizations: _Authorizations
    users: list[Item]
    groups: list[Item]
    roles: list[Item]
    mfa_devices: list[Item]
    access_keys: dict[str, list[Item]]  # by the user's ARN
    reports: list[tuple[str, Item]]  # with the principal's ARN
    saml_providers: list[Item]
    server_certificates: list[Item]
    summary: dict[str, int]


def _attached(principal: Item) -> list[str]:
    return [policy["PolicyArn"] for policy in principal.get("AttachedManagedPolicies", [])]


def _default_statements(policy: Item) -> Any:
    versions = (each for each in policy.get("PolicyVersionList", []) if each.get("IsDefaultVersion"))
    return next((version["Document"]["Statement"] for version in versions), None)


async def _authorizations(api: Api) -> _Authorizations:
    pages = await api.items(GET_AUTHORIZATION_DETAILS)
    users, groups, roles = (
        [item for page in pages for item in page.get(key, [])]
        for key in ("UserDetailList", "GroupDetailList", "RoleDetailList")
    )
    told = {policy["Arn"]: _default_statements(policy) for page in pages for policy in page.get("Policies", [])}
    statements = {arn: found for arn, found in told.items() if found is not None}
    wanted = dict.fromkeys(arn for principal in (*users, *groups, *roles) for arn in _attached(principal))
    # one that was attached while the pages were read is not among their policies
    for arn, found in await api.each(lambda arn: _policy(api, arn), [arn for arn in wanted if arn not in statements]):
        if found is not None:
            statements[arn] = found
    return _Authorizations(users, groups, roles, statements)


async def _policy(api: Api, arn: str) -> tuple[str, Any]:
    policy = await api.one(GET_POLICY, PolicyArn=arn)
    if policy is None:
        return arn, None
    version = await api.one(GET_POLICY_VERSION, PolicyArn=arn, VersionId=policy["DefaultVersionId"])
    return arn, version and version["Document"]["Statement"]


async def _mfa_devices(api: Api, users: Iterable[Item]) -> list[Item]:
    async def ask(user: Item) -> list[Item]:
        devices = await api.tolerate(api.items(LIST_MFA_DEVICES, UserName=user["UserName"]), [])
        return [{**device, "UserArn": user["Arn"]} for device in devices]

    return [device for devices in await api.each(ask, users) for device in devices]


async def _access_keys(api: Api, users: Iterable[Item]) -> dict[str, list[Item]]:
    async def used(key: Item) -> Item:
        last = await api.one(GET_ACCESS_KEY_LAST_USED, AccessKeyId=key["AccessKeyId"])
        return {
            **key,
            "LastUsedDate": last.get("LastUsedDate"),
            "LastUsedService": last["ServiceName"],
            "LastUsedRegion": last["Region"],
        }

    async def ask(user: Item) -> tuple[str, list[Item]]:
        keys = await api.items(LIST_ACCESS_KEYS, UserName=user["UserName"])
        return user["Arn"], await api.each(used, keys)

    return dict(await api.each(ask, users))


async def _report(api: Api, arn: str) -> Item | None:
    """What the principal accessed last. AWS makes the report when it is asked for, and takes seconds to."""
    job = await api.one(ASK_FOR_REPORT, Arn=arn)
    if job is None:
        return None
    for _ in range(_REPORT_LOOKS_MAX):
        page = await api.one(GET_REPORT, JobId=job)
        if page is None or page["JobStatus"] == "FAILED":
            return None
        if page["JobStatus"] == "COMPLETED":
            return _latest(await _services(api, job, page))
        await asyncio.sleep(_REPORT_LOOK_EVERY_S)
    return None


async def _services(api: Api, job: str, page: Item) -> list[Item]:
    found = list(page.get("ServicesLastAccessed", []))
    while page.get("IsTruncated") and page.get("Marker"):
        page = await api.one(GET_REPORT, JobId=job, Marker=page["Marker"])
        found += page.get("ServicesLastAccessed", [])
    return found


def _latest(services: Iterable[Item]) -> Item | None:
    accessed = (service for service in services if service.get("LastAuthenticated"))
    return max(accessed, key=lambda service: service["LastAuthenticated"], default=None)


async def _reports(api: Api, principals: Sequence[Item]) -> list[tuple[str, Item]]:
    async def ask(principal: Item) -> tuple[str, Item | None]:
        # without the permission, stock takes nothing to have been accessed
        return principal["Arn"], await api.tolerate(_report(api, principal["Arn"]), None)

    return [(arn, service) for arn, service in await api.each(ask, principals) if service is not None]


async def _gather(api: Api) -> _Found:
    authorizations, users, groups, roles, providers, certificates, summary = await asyncio.gather(
        _authorizations(api),
        api.items(LIST_USERS),
        api.items(LIST_GROUPS),
        api.items(LIST_ROLES),
        # these two stock takes for empty where they are denied
        api.tolerate(api.items(LIST_SAML_PROVIDERS), []),
        api.tolerate(api.items(LIST_SERVER_CERTIFICATES), []),
        api.one(GET_ACCOUNT_SUMMARY),
    )
    devices, keys, reports = await asyncio.gather(
        _mfa_devices(api, users), _access_keys(api, users), _reports(api, [*users, *groups, *roles])
    )
    return _Found(authorizations, users, groups, roles, devices, keys, reports, providers, certificates, summary)


def _accessed(arn: str, service: Item) -> Row:
    return {
        "arn": arn,
        "last_accessed_service_name": service.get("ServiceName"),
        "last_accessed_service_namespace": service.get("ServiceNamespace"),
        "last_authenticated": str(service.get("LastAuthenticated", "")),
        "last_authenticated_entity": service.get("LastAuthenticatedEntity", ""),
        "last_authenticated_region": service.get("LastAuthenticatedRegion", ""),
    }


def _root(partition: str, account: str) -> Row:
    return {"arn": f"arn:{partition}:iam::{account}:root", "account": account}


def _sorted(rows: Iterable[Row], name: str) -> list[Row]:
    """With the list sorted that stock's transform takes from a set: what did not change gives the same row again."""
    return [{**row, name: sorted(row[name])} for row in rows]


def _shape(found: _Found, place: Place) -> Shaped:
    account, told = place.account.id, found.authorizations
    trust = transform_role_trust_policies(found.roles, account)
    inline = [
        transform_policy_data(told.inline(principals, policies), "inline")
        for principals, policies in (
            (told.users, "UserPolicyList"),
            (told.groups, "GroupPolicyList"),
            (told.roles, "RolePolicyList"),
        )
    ]
    managed = [
        transform_policy_data(told.managed(principals), "managed")
        for principals in (told.users, told.groups, told.roles)
    ]
    return {
        AWSUserSchema: transform_users(found.users),
        AWSMfaDeviceSchema: transform_mfa_devices(found.mfa_devices),
        AWSGroupSchema: transform_groups(found.groups, told.members()),
        AWSAccountAWSRoleSchema: trust.external_aws_accounts,
        AWSRootPrincipalSchema: [
            _root(get_partition(place.region), account),
            *(_root(each["partition"], each["id"]) for each in trust.external_aws_accounts),
        ],
        AWSServicePrincipalSchema: trust.service_principals,
        AWSFederatedPrincipalSchema: trust.federated_principals,
        AWSRoleSchema: _sorted(trust.role_data, "trusted_aws_principals"),
        AWSManagedPolicySchema: _sorted((row for data in managed for row in data.managed_policies), "principal_arns"),
        AWSInlinePolicySchema: _sorted((row for data in inline for row in data.inline_policies), "principal_arns"),
        AWSPolicyStatementSchema: [
            row for data in (*inline, *managed) for rows in data.statements_by_policy_id.values() for row in rows
        ],
        AWSPrincipalServiceAccessSchema: [_accessed(arn, service) for arn, service in found.reports],
        AccountAccessKeySchema: transform_access_keys(found.access_keys),
        AWSSAMLProviderSchema: [{**each, "Name": each["Arn"].rpartition("/")[2]} for each in found.saml_providers],
        AWSServerCertificateSchema: transform_server_certificates(found.server_certificates),
        AWSAccountSummarySchema: transform_account_summary(found.summary, account),
    }


MODULE = NativeModule(
    name="iam",
    permissions=(
        "iam:GetAccountAuthorizationDetails",
        "iam:GetPolicy",
        "iam:GetPolicyVersion",
        "iam:ListUsers",
        "iam:ListGroups",
        "iam:ListRoles",
        "iam:ListMFADevices",
        "iam:ListAccessKeys",
        "iam:GetAccessKeyLastUsed",
        "iam:GenerateServiceLastAccessedDetails",
        "iam:GetServiceLastAccessedDetails",
        "iam:ListSAMLProviders",
        "iam:ListServerCertificates",
        "iam:GetAccountSummary",
    ),
    fetch=_gather,
    shape=_shape,
    tables=(
        Table(AWSUserSchema),
        Table(AWSMfaDeviceSchema),
        Table(AWSGroupSchema),
        Table(AWSAccountAWSRoleSchema),
        Table(AWSRootPrincipalSchema, by={"AWS_ID": "account"}),
        Table(AWSServicePrincipalSchema),
        Table(AWSFederatedPrincipalSchema),
        Table(AWSRoleSchema),
        Table(AWSManagedPolicySchema),
        Table(AWSInlinePolicySchema),
        Table(AWSPolicyStatementSchema, by={"POLICY_ID": "policy_id"}),
        Table(AWSPrincipalServiceAccessSchema),
        Table(AccountAccessKeySchema),
        Table(AWSSAMLProviderSchema),
        Table(AWSServerCertificateSchema),
        Table(AWSAccountSummarySchema),
    ),
    cleanup=(
        Cleanup(AWSPrincipalServiceAccessSchema),
        Cleanup(AccountAccessKeySchema),
        Cleanup(AWSPolicyStatementSchema, of="AWSPolicy"),
        Cleanup(AWSManagedPolicySchema),
        Cleanup(AWSInlinePolicySchema),
        Cleanup(AWSRoleSchema),
        Cleanup(AWSFederatedPrincipalSchema),
        Cleanup(AWSServicePrincipalSchema),
        Cleanup(AWSMfaDeviceSchema),
        Cleanup(AWSUserSchema),
        Cleanup(AWSGroupSchema),
        Cleanup(AWSServerCertificateSchema),
        Cleanup(AWSSAMLProviderSchema),
        Cleanup(AWSRootPrincipalSchema),
    ),
    regional=False,
    marks=("AWSPrincipal",),
    brings=("analysis:assume_role",),  # who may assume which role follows from the policies of all accounts
)
