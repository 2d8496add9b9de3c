"""Rulesets and alerts of an invented organization, as REST answers them by path."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

CREATED, UPDATED = "2024-03-01T09:00:00Z", "2024-09-15T17:30:00Z"


def number(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def alerts(login: str, api: str, repository: dict[str, Any], people: Sequence[Any]) -> dict[str, Any]:
    def alert(i: int, state: str) -> dict[str, Any]:
        who = people[i : i + 2]
        return {
            "number": i,
            "state": state,
            "url": f"{api}/repos/{repository['nameWithOwner']}/dependabot/alerts/{i}",
            "html_url": f"{repository['url']}/security/dependabot/{i}",
            "created_at": CREATED,
            "updated_at": UPDATED,
            "dismissed_at": UPDATED if state == "dismissed" else None,
            "dismissed_by": who[0] if state == "dismissed" else None,
            "dismissed_reason": "tolerable_risk" if state == "dismissed" else None,
            "assignees": who,
            "dependency": {
                "package": {"ecosystem": "pip", "name": "matcha"},
                "manifest_path": "pyproject.toml",
                "scope": "runtime",
            },
            "security_advisory": {
                "ghsa_id": f"GHSA-fake-{i}",
                "cve_id": f"CVE-0000-000{i}" if i else None,
                "summary": "It is too bitter",
                "severity": "high",
                "cvss": {"score": 7.5 if i else 7, "vector_string": "CVSS:3.1/made-up"},
                "epss": {"percentage": 0.25, "percentile": 0.5},
                "cwes": [{"cwe_id": "CWE-20"}],
                "identifiers": [{"type": "GHSA", "value": f"GHSA-fake-{i}"}],
                "references": [{"url": f"https://advisories.example/{i}"}],
            },
            "security_vulnerability": {
                "vulnerable_version_range": "< 2",
                "first_patched_version": {"identifier": "2.0"},
            },
            "repository": {
                "html_url": repository["url"],
                "name": repository["name"],
                "full_name": repository["nameWithOwner"],
            },
        }

    found = [alert(0, "open"), alert(1, "dismissed"), alert(2, "fixed")]
    return {f"/orgs/{login}/dependabot/alerts": found}


def rulesets(login: str, repositories: Sequence[str]) -> dict[str, Any]:
    def ruleset(name: str, target: str) -> dict[str, Any]:
        return {
            "id": number(f"{login}{name}"),
            "node_id": f"{login}-{name}",
            "source_type": "Organization",
            "source": login,
            "name": name,
            "target": target,
            "enforcement": "active",
            "created_at": CREATED,
            "updated_at": UPDATED,
        }

    shared, own = ruleset("everywhere", "branch"), ruleset("kettle only", "tag")
    conditions = {
        "ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": ["refs/heads/try/*"]},
        "repository_name": {"include": ["k*", "t*"], "exclude": [], "protected": True},
        "repository_property": {"include": [{"name": "tier", "property_values": ["one"]}], "exclude": []},
    }
    review = {"required_approving_review_count": 1, "require_code_owner_review": True}
    checks = {"required_status_checks": [{"context": "steep"}, {"context": "taste"}]}
    rules = [
        {"type": "pull_request", "parameters": {**review, "dismiss_stale_reviews_on_push": False}},
        {"type": "required_status_checks", "parameters": checks},
        {"type": "deletion"},
    ]
    found: dict[str, Any] = {}
    for name in repositories:
        at = f"/repos/{login}/{name}/rulesets"
        found[at] = [shared, own] if name == "kettle" else [shared]
        found[f"{at}/{shared['id']}"] = {**shared, "conditions": conditions, "rules": rules}
        found[f"{at}/{own['id']}"] = {**own, "conditions": {}, "rules": rules[2:]}
    return found
