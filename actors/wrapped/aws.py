"""Runs one of Cartography's AWS modules, or what Cartography runs after them, for one account or for all of a run.

What is called, and with which arguments, is as in `cartography.intel.aws`: `_sync_one_account`,
`_sync_multiple_accounts` and `_perform_aws_analysis`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

from actors.cloud import Sessions
from actors.transforms import load_module
from actors.wrapped.dependencies import NEEDS
from actors.wrapped.modules import ASSUME_ROLE, METADATA, ORGANIZATION, PRINCIPALS, PUBLIC_PARAMETERS
from actors.wrapped.session import GraphSession
from cartoray.errors import UnknownModule
from cartoray.jobs import EVERY_ACCOUNT, Account, Job

_ANALYSES: Mapping[str, tuple[str, ...]] = {
    "analysis:instance_profile": ("AWS_EC2_IAM_INSTANCE_PROFILE",),
    "analysis:lambda_ecr": ("AWS_LAMBDA_ECR",),
    "analysis:lb_nacl": ("AWS_LB_NACL_DIRECT",),
    "analysis:exposure": (
        "AWS_EC2_ASSET_EXPOSURE_LOAD_BALANCER_V2",
        "AWS_EC2_ASSET_EXPOSURE_LOAD_BALANCER",
        "AWS_EC2_ASSET_EXPOSURE_INSTANCE",
    ),
    "analysis:exposure_asg": ("AWS_EC2_ASSET_EXPOSURE_AUTO_SCALING_GROUP",),
    "analysis:keypair": ("AWS_EC2_KEYPAIR_PROPERTIES", "AWS_EC2_KEYPAIR_MATCHING_FINGERPRINT"),
    "analysis:eks_exposure": ("AWS_EKS_ASSET_EXPOSURE",),
    "analysis:foreign_accounts": ("AWS_FOREIGN_ACCOUNTS",),
    "analysis:ecs_exposure": ("AWS_ECS_ASSET_EXPOSURE",),
    "analysis:lb_containers": ("AWS_LB_CONTAINER_EXPOSURE",),
}
_ANALYSIS_FILES: Mapping[str, tuple[str, str]] = {
    "analysis:ip_labels": ("run_analysis_job", "aws_ip_node_label_migration.json"),
    PRINCIPALS: ("run_cleanup_job", "aws_post_ingestion_principals_cleanup.json"),
}

_sessions: ContextVar[Sessions] = ContextVar("sessions")  # of the job that this thread does


def job_parameters(config: Any, update_tag: int, account: Account) -> dict[str, Any]:
    """What Cartography calls `common_job_parameters`: modules change it, so each job has its own."""
    prefixes = config.aws_ssm_public_parameter_prefix_allowlist
    if prefixes is None:
        prefixes = os.environ.get("AWS_SSM_PUBLIC_PARAMETER_PREFIX_ALLOWLIST", "")
    found = {
        "UPDATE_TAG": update_tag,
        "permission_relationships_file": config.permission_relationships_file,
        "aws_guardduty_severity_threshold": config.aws_guardduty_severity_threshold,
        "aws_cloudtrail_management_events_lookback_hours": config.aws_cloudtrail_management_events_lookback_hours,
        "experimental_aws_inspector_batch": config.experimental_aws_inspector_batch,
        "aws_tagging_api_cleanup_batch": config.aws_tagging_api_cleanup_batch,
        "aws_ssm_public_parameter_prefix_allowlist": prefixes,
    }
    return found if account.id == EVERY_ACCOUNT else {**found, "AWS_ID": account.id}


def run_module(job: Job, session: GraphSession, config: Any, sessions: Sessions, regions: tuple[str, ...]) -> None:
    """Raises what the module raises, and UnknownModule. `regions`: of an account's module, where it looks."""
    parameters = job_parameters(config, job.update_tag, job.account)
    if job.module in NEEDS:
        functions: Any = load_module("cartography.intel.aws.resources").RESOURCE_FUNCTIONS
        arguments = (list(regions), job.account.id, job.update_tag, parameters)
        if job.module == "ecr:image_layers":
            aio_session = partial(sessions.aio_session, job.account)
            functions[job.module](session, aio_session(), *arguments, aioboto3_session_factory=aio_session)
        else:
            names = ("regions", "current_aws_account_id", "update_tag", "common_job_parameters")
            functions[job.module](
                neo4j_session=session,
                boto3_session=sessions.session(job.account),
                **dict(zip(names, arguments, strict=True)),
            )
    elif job.module in _ANALYSES:
        util: Any = load_module("cartography.util")
        analysis = load_module("cartography.analysis.aws.analysis")
        for name in _ANALYSES[job.module]:
            util.run_typed_analysis_job(getattr(analysis, name), session, parameters)
    elif job.module in _ANALYSIS_FILES:
        function, name = _ANALYSIS_FILES[job.module]
        getattr(load_module("cartography.util"), function)(name, session, parameters)
    elif job.module == METADATA:
        aws: Any = load_module("cartography.intel.aws")
        aws.merge_module_sync_metadata(
            session,
            group_type="AWSAccount",
            group_id=job.account.id,
            synced_type="AWSAccount",
            update_tag=job.update_tag,
            stat_handler=aws.stat_handler,
        )
    elif job.module == ASSUME_ROLE:
        iam: Any = load_module("cartography.intel.aws.iam")
        iam.sync_assumerole_relationships(session, job.account.id, job.update_tag, parameters)
    elif job.module in (ORGANIZATION, PUBLIC_PARAMETERS):
        _run_over_accounts(job, session, parameters, sessions)
    else:
        raise UnknownModule(f"This release has no module {job.module!r}.")


def _run_over_accounts(job: Job, session: GraphSession, parameters: dict[str, Any], sessions: Sessions) -> None:
    """What makes boto3 sessions by profile: here a profile is an account of the run, and its session one of ours."""
    aws: Any = load_module("cartography.intel.aws")
    aws.boto3 = _Boto3
    token = _sessions.set(sessions)
    accounts = {account.id: account.id for account in job.accounts}
    try:
        if job.module == ORGANIZATION:
            aws._sync_aws_organizations_for_accounts(
                session, accounts, job.update_tag, parameters, use_explicit_profile=True
            )
        else:
            aws._sync_shared_public_ssm_parameters(
                session,
                None,
                accounts,
                ["ssm"],
                parameters,
                list(job.regions) or None,
                aws_best_effort_mode=False,
            )
    finally:
        _sessions.reset(token)


class _Boto3:
    """In place of `boto3` where Cartography makes sessions, in this process only."""

    @staticmethod
    def Session(*, profile_name: str) -> Any:
        return _sessions.get().session(Account(id=profile_name))
