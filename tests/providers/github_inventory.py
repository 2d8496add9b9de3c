"""What the invented GitHub organizations consist of: a tree for GraphQL, and answers by path for REST."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from providers.github_images import images
from providers.github_security import alerts, number, rulesets
from providers.selection import Connection

AT_HOME, HERE = "acorn-orchard", "birch-foundry"
ORGANIZATIONS = (AT_HOME, HERE)
PERMISSIONS = ("ADMIN", "MAINTAIN", "WRITE", "TRIAGE", "READ")
MEMBERS = ("ada-quill", "ben-thistle", "cy-marrow", "dot-fennel", "eve-sorrel")
OWNERS = ("ada-quill", "olga-outwards")
OUTSIDERS = ("finn-tansy", "gus-lovage")
CREATED, UPDATED = "2024-03-01T09:00:00Z", "2024-09-15T17:30:00Z"
WORKFLOW = """
name: Steep
on: {push: {branches: [main]}, workflow_dispatch: {}}
permissions: {contents: read, packages: write, id-token: write}
env: {LEAVES: loose}
jobs:
  steep:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: invented/kettle-action@0123456789abcdef0123456789abcdef01234567
      - uses: ./.github/actions/pour
      - run: pour --token ${{ secrets.POUR }} --shared ${{ secrets.SHARED }}
  call:
    uses: invented/shared/.github/workflows/brew.yml@v2
"""
CODEOWNERS = """
# who looks at what
* @ada-quill
/web/ @{login}/makers @ben-thistle
*.toml taster@acorn.example @{login}/nobody
[odd] @cy-marrow
"""
SETUP_CFG = "[options]\ninstall_requires =\n  bergamot>=1.2\n  oolong\n[options.extras_require]\nmilk = oat==0.3\n"
UV_LOCK = 'version = 1\n[[package]]\nname = "sencha"\nversion = "2.4.1"\n'
NPM_LOCK = json.dumps({"packages": {"": {}, "node_modules/rooibos": {"version": "3.1.0"}}})


@dataclass(frozen=True)
class Listed:
    """A list which the API wraps in an object."""

    key: str
    items: list[Any]


def encoded(text: str) -> dict[str, str]:
    return {"encoding": "base64", "content": base64.encodebytes(text.encode()).decode()}


def _by(named: dict[str, Any]) -> Callable[..., Any]:
    """A field that answers the one of the name which is its only argument."""

    def one(**arguments: str) -> Any:
        return named.get(*arguments.values())

    return one


class Inventory:
    """One organization. `graph`: its fields in GraphQL; `rest`: path → what is answered, lists in pages."""

    def __init__(self, login: str, url: str) -> None:
        self.login = login
        self.root = "https://github.com" if login == AT_HOME else url
        self.api = f"{url}/api/v3"
        self.url = f"{self.root}/{login}"
        people = sorted({*MEMBERS, *OWNERS, *OUTSIDERS})
        self.people = {name: self._user(name) for name in people}
        repositories = {each["name"]: each for each in self._repositories()}
        self.repositories = list(repositories.values())
        teams = {each["slug"]: each for each in self._teams()}
        self.graph: dict[str, Any] = {
            "url": self.url,
            "login": login,
            "membersWithRole": Connection(
                [self.people[name] for name in MEMBERS],
                [{"hasTwoFactorEnabled": bool(i % 2), "role": "ADMIN" if i < 2 else "MEMBER"} for i in range(5)],
            ),
            "enterpriseOwners": Connection(
                [self.people[name] for name in OWNERS],
                [{"organizationRole": "OWNER"}, {"organizationRole": "UNAFFILIATED"}],
            ),
            "samlIdentityProvider": {"externalIdentities": Connection(self._identities())},
            "ipAllowListEnabledSetting": "ENABLED",
            "notificationDeliveryRestrictionEnabledSetting": "DISABLED",
            "domains": Connection([self._domain(i) for i in range(4)]),
            "repositories": Connection(self.repositories),
            "repository": _by(repositories),
            "teams": Connection(list(teams.values())),
            "team": _by(teams),
        }
        self.rest: dict[str, Any] = {
            **self._settings(),
            **self._access(),
            **alerts(login, self.api, repositories["kettle"], [self._rest_user(name) for name in MEMBERS]),
            **self._actions(),
            **self._files(),
            **rulesets(login, list(repositories)),
            **images(login, self.url, f"{self.api}/orgs/{login}"),
        }

    def _user(self, name: str) -> dict[str, Any]:
        return {
            "url": f"{self.root}/{name}",
            "login": name,
            "name": name.replace("-", " ").title(),
            "isSiteAdmin": name == "ada-quill",
            "email": "" if name in OUTSIDERS else f"{name}@acorn.example",
            "company": "Acorn & Sons" if name < "c" else None,
            "organizationVerifiedDomainEmails": lambda login: [f"{name}@{login}.example"],
        }

    def _rest_user(self, name: str) -> dict[str, Any]:
        return {"login": name, "html_url": f"{self.root}/{name}", "type": "User", "site_admin": False}

    def _identities(self) -> list[dict[str, Any]]:
        named = [
            {"id": f"identity-{i}", "samlIdentity": {"nameId": f"{name}@acorn.example"}, "user": self.people[name]}
            for i, name in enumerate(MEMBERS)
        ]
        return [*named, {"id": "identity-unlinked", "samlIdentity": None, "user": None}]

    def _domain(self, i: int) -> dict[str, Any]:
        return {
            "id": f"{self.login}-domain-{i}",
            "domain": f"d{i}.{self.login}.example",
            "isVerified": i < 3,
            "isApproved": i < 2,
            "isRequiredForPolicyEnforcement": i == 0,
            "createdAt": CREATED,
            "updatedAt": UPDATED,
        }

    def _repositories(self) -> list[dict[str, Any]]:
        return [
            self._repository("kettle", ["Python", "TypeScript", "Shell"], manifests=self._manifests()),
            self._repository("teapot", ["Python"], requirements="sencha==2.4.1\nmatcha>=1,<2  # green\n-r more.txt\n"),
            self._repository("saucer", ["Go"], parent={"url": f"{self.root}/elsewhere/saucer"}),
            self._repository("spoon", [], owner="ada-quill"),
            self._repository("attic", [], archived=True),
        ]

    def _repository(
        self,
        name: str,
        languages: list[str],
        *,
        owner: str = "",
        parent: dict[str, str] | None = None,
        requirements: str = "",
        archived: bool = False,
        manifests: Connection | None = None,
    ) -> dict[str, Any]:
        url = f"{self.root}/{owner or self.login}/{name}"
        direct = [(self.people[who], right) for who, right in zip(MEMBERS, PERMISSIONS, strict=True)]
        outside = [(self.people[OUTSIDERS[i % 2]], right) for i, right in enumerate(PERMISSIONS)]
        direct, outside = (direct, outside) if name == "kettle" else (direct[2:3], [])

        def collaborators(affiliation: str) -> Connection:
            found = direct if affiliation == "DIRECT" else outside
            return Connection([who for who, _ in found], [{"permission": right} for _, right in found])

        return {
            "name": name,
            "nameWithOwner": f"{owner or self.login}/{name}",
            "primaryLanguage": {"name": languages[0]} if languages else None,
            "url": url,
            "sshUrl": f"git@github.example:{owner or self.login}/{name}.git",
            "createdAt": CREATED,
            "description": None if archived else f"Everything about the {name}",
            "updatedAt": UPDATED,
            "homepageUrl": f"https://{name}.example" if languages else None,
            "languages": Connection([{"name": each} for each in languages]),
            "defaultBranchRef": None if archived else {"name": "main", "id": "ref-main", "target": self._commits(name)},
            "isPrivate": name != "teapot",
            "visibility": "PUBLIC" if name == "teapot" else "PRIVATE",
            "isArchived": archived,
            "isDisabled": False,
            "isLocked": archived,
            "isFork": parent is not None,
            "parent": parent,
            "owner": {
                "url": f"{self.root}/{owner or self.login}",
                "login": owner or self.login,
                "__typename": "User" if owner else "Organization",
            },
            "object": lambda expression: {
                "HEAD:requirements.txt": {"text": requirements} if requirements else None,
                "HEAD:setup.cfg": {"text": SETUP_CFG} if requirements else None,
            }[expression],
            "collaborators": collaborators,
            "branchProtectionRules": Connection(
                [self._protection(name, pattern) for pattern in ("main", "release/*")] if len(languages) else []
            ),
            "dependencyGraphManifests": manifests or Connection([]),
        }

    def _commits(self, name: str) -> dict[str, Any]:
        authors: list[str | None] = [*MEMBERS[:3], "gus-lovage", None, MEMBERS[0], "nobody-known"]
        commits = [
            {
                "committedDate": f"2024-05-{i + 1:02}T0{i}:15:00Z",
                "author": {"user": {"url": f"{self.root}/{who}"} if who else None},
            }
            for i, who in enumerate(authors)
        ]
        return {
            "history": lambda since: Connection(
                [each for each in commits if name in {"kettle", "teapot"} and str(each["committedDate"]) >= since]
            )
        }

    def _protection(self, name: str, pattern: str) -> dict[str, Any]:
        strict = pattern == "main"
        return {
            "id": f"{self.login}-{name}-{pattern}",
            "pattern": pattern,
            "requiredApprovingReviewCount": 2 if strict else None,
            **dict.fromkeys(("allowsDeletions", "allowsForcePushes", "restrictsReviewDismissals"), not strict),
            **dict.fromkeys(("dismissesStaleReviews", "isAdminEnforced", "requiresApprovingReviews"), strict),
            **dict.fromkeys(("requiresCodeOwnerReviews", "requiresCommitSignatures", "restrictsPushes"), strict),
            **dict.fromkeys(("requiresLinearHistory", "requiresStatusChecks", "requiresStrictStatusChecks"), True),
        }

    def _manifests(self) -> Connection:
        def dependency(manager: str, name: str, requirements: str, version: str = "") -> dict[str, Any]:
            kind = {"PIP": "pypi", "NPM": "npm"}[manager]
            return {
                "packageName": name,
                "packageUrl": f"pkg:{kind}/{name.lower()}@{version}" if version else None,
                "requirements": requirements,
                "packageManager": manager,
            }

        python = [
            dependency("PIP", "Sencha", ">= 2"),
            dependency("PIP", "matcha", "= 1.9", "1.9"),
            dependency("PIP", "Gun_Powder", "= 4.0.2", "4.0.2"),
            dependency("PIP", "oolong", ""),
        ]
        web = [dependency("NPM", "rooibos", "^3.0.0"), dependency("NPM", "chai", "= 5.0.0", "5.0.0")]
        at = f"/{self.login}/kettle/blob/main"
        return Connection(
            [
                {"blobPath": f"{at}/pyproject.toml", "dependencies": Connection(python)},
                {"blobPath": f"{at}/web/package.json", "dependencies": Connection(web)},
                {"blobPath": "package.json", "dependencies": Connection([])},
            ]
        )

    def _teams(self) -> list[dict[str, Any]]:
        def team(
            slug: str, members: tuple[str, ...], rights: dict[str, str], children: tuple[str, ...] = ()
        ) -> dict[str, Any]:
            named = {each["name"]: each for each in self.repositories}
            inside = Connection(
                [self.people[who] for who in members],
                [{"role": "MEMBER" if i else "MAINTAINER"} for i in range(len(members))],
            )
            return {
                "slug": slug,
                "url": self._team(slug),
                "description": f"The {slug}" if members else None,
                "repositories": Connection(
                    [named[name] for name in rights], [{"permission": right} for right in rights.values()]
                ),
                "members": lambda membership: inside,
                "childTeams": Connection([{"url": self._team(each)} for each in children]),
            }

        return [
            team("keepers", MEMBERS[:4], {"kettle": "ADMIN", "teapot": "MAINTAIN"}, ("makers", "guests")),
            team("makers", MEMBERS[2:], {"kettle": "WRITE", "saucer": "TRIAGE", "teapot": "READ", "attic": "READ"}),
            team("guests", OUTSIDERS[:1], {}),
            team("ghosts", (), {}),
        ]

    def _team(self, slug: str) -> str:
        return f"{self.root}/orgs/{self.login}/teams/{slug}"

    def _settings(self) -> dict[str, Any]:
        at = f"/orgs/{self.login}"
        flags = ("advanced_security", "secret_scanning", "secret_scanning_push_protection")
        enabled = {f"{flag}_enabled_for_new_repositories": True for flag in flags}
        rights = {f"members_can_create_{kind}repositories": kind == "" for kind in ("", "public_", "private_")}
        return {
            at: {
                "name": self.login.title(),
                "is_verified": True,
                "two_factor_requirement_enabled": True,
                "default_repository_permission": "read",
                **rights,
                **enabled,
            },
            f"{at}/actions/permissions": {"enabled_repositories": "all", "allowed_actions": "selected"},
            f"{at}/actions/permissions/selected-actions": {
                "github_owned_allowed": True,
                "verified_allowed": False,
                "patterns_allowed": ["invented/*", "acorn-orchard/*"],
            },
            f"{at}/actions/permissions/workflow": {
                "default_workflow_permissions": "read",
                "can_approve_pull_request_reviews": False,
            },
            f"{at}/copilot/billing": {"plan_type": "business", "cli": "disabled", "seat_breakdown": {"total": 3}},
            f"{at}/repos": [
                {
                    "html_url": each["url"],
                    "security_and_analysis": {
                        "secret_scanning": {"status": "enabled"},
                        "dependabot_security_updates": {"status": "disabled"},
                    },
                }
                for each in self.repositories[:4]
            ],
        }

    def _access(self) -> dict[str, Any]:
        at = f"/orgs/{self.login}"

        tokens = [
            {
                "id": 100 + i,
                "token_id": 900 + i,
                "token_name": f"reads-{i}",
                "owner": self._rest_user(name),
                "repository_selection": "subset",
                "permissions": {"repository": {"contents": "read"}},
                "access_granted_at": CREATED,
                "token_expires_at": "2030-01-01T00:00:00+02:00" if i else None,
                "token_last_used_at": UPDATED,
            }
            for i, name in enumerate(MEMBERS[:3])
        ]
        repositories = [{"html_url": each["url"]} for each in self.repositories[:3]]
        hooks = [self._hook(f"{self.api}{at}/hooks/{i}", i) for i in range(3)]
        found: dict[str, Any] = {
            f"{at}/personal-access-tokens": tokens,
            **{f"{at}/personal-access-tokens/{each['id']}/repositories": repositories for each in tokens},
            f"{at}/credential-authorizations": [
                {
                    "login": MEMBERS[i],
                    "credential_id": 700 + i,
                    "credential_type": "personal access token" if i else "SSH key",
                    "scopes": ["read:org", "repo"],
                    "credential_authorized_at": CREATED,
                    "credential_accessed_at": UPDATED,
                    "authorized_credential_expires_at": None,
                }
                for i in range(3)
            ],
            f"{at}/installations": Listed("installations", [self._installation(i) for i in range(3)]),
            f"{at}/hooks": hooks,
        }
        for i, each in enumerate(self.repositories):
            path = f"/repos/{each['nameWithOwner']}/hooks"
            found[path] = [self._hook(f"{self.api}{path}/{i}", i)] if i < 2 else []
        return found

    def _hook(self, url: str, i: int) -> dict[str, Any]:
        return {
            "id": number(url),
            "url": url,
            "name": "web",
            "active": i != 2,
            "events": ["push", "release"],
            "config": {
                "url": f"http{'s' if i else ''}://listener-{i}.example/in",
                "content_type": "json",
                "insecure_ssl": str(i % 2),
                **({"secret": "********"} if i else {}),
            },
            "last_response": {"code": 200 if i else None, "status": "active" if i else "unused"},
            "created_at": CREATED,
            "updated_at": UPDATED,
        }

    def _installation(self, i: int) -> dict[str, Any]:
        return {
            "id": 40 + i,
            "app_id": 4_000 + i,
            "app_slug": f"taster-{i}",
            "client_id": f"not-a-client-{i}",
            "target_type": "Organization",
            "repository_selection": "all",
            "permissions": {"metadata": "read", "contents": "write" if i else "read"},
            "events": ["push"],
            "suspended_at": UPDATED if i == 2 else None,
            "suspended_by": {"login": "ada-quill"} if i == 2 else None,
            "html_url": f"{self.url}/settings/installations/{40 + i}",
            "created_at": CREATED,
            "updated_at": UPDATED,
        }

    def _actions(self) -> dict[str, Any]:
        def secrets(*names: str) -> Listed:
            return Listed("secrets", [{"name": name, "created_at": CREATED, "updated_at": UPDATED} for name in names])

        def variables(*names: str) -> Listed:
            return Listed("variables", [{"name": name, "value": f"is {name}", "created_at": CREATED} for name in names])

        at, repo = f"/orgs/{self.login}/actions", f"/repos/{self.login}/kettle"
        workflows = [
            {
                "id": number(f"{self.login}{file}"),
                "name": file,
                "path": f".github/workflows/{file}.yml",
                "state": "active",
                "created_at": CREATED,
                "updated_at": UPDATED,
                "html_url": f"{self.url}/kettle/blob/main/.github/workflows/{file}.yml",
            }
            for file in ("steep", "missing", "broken")
        ]
        environments = [
            {"id": number(self.login + name), "name": name, "html_url": f"{self.url}/kettle/deployments/{name}"}
            for name in ("production", "tasting/room", "cellar")
        ]
        return {
            f"{at}/secrets": secrets("SHARED", "SPARE", "STALE"),
            f"{at}/variables": variables("LEAVES", "WATER", "TIME"),
            f"{repo}/actions/workflows": Listed("workflows", workflows),
            f"{repo}/actions/secrets": secrets("POUR"),
            f"{repo}/actions/variables": variables("CUP"),
            f"{repo}/environments": Listed("environments", environments),
            f"{repo}/environments/production/secrets": secrets("LID", "SPOUT"),
            f"{repo}/environments/production/variables": variables("HEAT"),
            f"{repo}/environments/tasting/room/secrets": secrets("SIP"),
        }

    def _files(self) -> dict[str, Any]:
        at = f"/repos/{self.login}/kettle/contents"
        return {
            f"{at}/.github/CODEOWNERS": encoded(CODEOWNERS.format(login=self.login)),
            f"{at}/.github/workflows/steep.yml": encoded(WORKFLOW),
            f"{at}/.github/workflows/broken.yml": encoded("jobs: [unclosed"),
            f"{at}/{self.login}/kettle/blob/main/uv.lock": encoded(UV_LOCK),
            f"{at}/{self.login}/kettle/blob/main/web/package-lock.json": encoded(NPM_LOCK),
        }
