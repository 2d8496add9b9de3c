"""Cartography's own modules as modules of ours: what each needs, and when it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.wrapped.dependencies import ACCOUNT_ANALYSIS, NEEDS, RUN_ANALYSIS
from cartoray.planning import ACCOUNT_MODULE

ORGANIZATION = "organization"
PUBLIC_PARAMETERS = "ssm:public_parameters"
METADATA = "analysis:metadata"
PRINCIPALS = "analysis:principals"
ASSUME_ROLE = "analysis:assume_role"

# They read relationships between nodes of others, which may have been deferred.
_LATE = ("ec2:load_balancer_v2:expose", "permission_relationships", "resourcegroupstaggingapi", *ACCOUNT_ANALYSIS)

# Cartography's `TOP_LEVEL_MODULES` but for aws, in its order. Its comments there say what must follow what.
_PROVIDERS = """create-indexes airbyte databricks anthropic azure microsoft cloudflare crowdstrike huntress gcp
    googleworkspace gsuite cve oci okta notion openai github gitlab digitalocean kandji keycloak salesforce kubernetes
    zoom jumpcloud jira lastpass bigfix duo workday scaleway semgrep sentry snipeit socketdev tailscale jamf pagerduty
    bbot docker_scout trivy syft aibom zizmor ubuntu sentinelone tenable wiz orca cve_metadata slack spacelift workos
    subimage vercel supabase railway netlify circleci modal miradore snowflake zendesk ontology analysis"""
PROVIDERS = tuple(_PROVIDERS.split())
_LAST = ("ontology", "analysis")  # they read what all others wrote
PROVIDER_NEEDS = {"zizmor": ("github",), "snowflake": ("gcp", "azure")}


@dataclass(frozen=True)
class WrappedModule:
    """One of Cartography's modules, run as it is. See `cartoray.planning.Declaration`."""

    name: str
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    once: bool = False
    late: bool = False
    wrapped: bool = True
    cleans: bool = False
    brings: tuple[str, ...] = ()


def aws_modules() -> Mapping[str, WrappedModule]:
    """Those of an AWS account, in the order of Cartography's `RESOURCE_FUNCTIONS`, and what it runs after them."""
    account = (ACCOUNT_MODULE,)
    everything = (*NEEDS, *ACCOUNT_ANALYSIS)
    found = [
        *(WrappedModule(name, needs, account, late=name in _LATE) for name, needs in NEEDS.items()),
        *(WrappedModule(name, needs, account, late=True) for name, needs in ACCOUNT_ANALYSIS.items()),
        WrappedModule(METADATA, everything, account, late=True),
        WrappedModule(ORGANIZATION, account, once=True),
        WrappedModule(PUBLIC_PARAMETERS, ("ssm",), account, once=True),
        WrappedModule(PRINCIPALS, (*everything, METADATA), account, once=True),
        *(WrappedModule(name, needs, account, once=True) for name, needs in RUN_ANALYSIS.items()),
    ]
    return {module.name: module for module in found}


def provider_modules() -> Mapping[str, WrappedModule]:
    """Cartography's other top-level modules, in its order; each syncs one instance of a provider."""
    first = tuple(name for name in PROVIDERS if name not in _LAST)
    needs = {**PROVIDER_NEEDS, "ontology": first, "analysis": (*first, "ontology")}
    return {name: WrappedModule(name, needs.get(name, ()), late=name in _LAST) for name in PROVIDERS}
