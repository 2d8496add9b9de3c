"""A stand-in for an invented Okta organization.

Okta's SDK takes https:// alone, and Cartography makes the host of the organization and the domain. So the host is one
that cannot exist (.invalid), which the stand-in is the proxy for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.web_server import Answer, Request, Server, paged, serving

ORGANIZATION, DOMAIN = "acorn-orchard", "okta.invalid"
HOST = f"{ORGANIZATION}.{DOMAIN}"
PAGE_MAX = 3
CREATED, UPDATED = "2024-02-03T08:00:00.000Z", "2024-08-09T10:11:12.000Z"
PEOPLE = ("ada", "ben", "cy", "dot", "eve", "finn", "gus")
GROUPS = ("everyone", "keepers", "makers", "aws#invented#taster#000000000000")
APPS = ("amazon_aws", "oidc_pantry", "bookmark_recipes", "active_directory")
ZONES = ("office", "abroad", "blocked", "proxies")

Item = dict[str, Any]


@contextlib.contextmanager
def start_okta(folder: Path) -> Iterator[Server]:
    """`folder`: for the certificates."""
    inventory = _inventory()
    with serving(lambda request: _respond(request, inventory), [HOST], folder) as server:
        yield server


def okta_arguments(server: Server) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment with which Cartography syncs from the stand-in."""
    arguments = ["--okta-org-id", ORGANIZATION, "--okta-base-domain", DOMAIN, "--okta-api-key-env-var", "STANDIN_OKTA"]
    return ["--selected-modules", "okta", *arguments], {"STANDIN_OKTA": "not-a-token", **server.proxy()}


def _respond(request: Request, inventory: dict[str, Any]) -> Answer:
    path = request.path
    if path == "/api/v1/users":
        gone = "DEPROVISIONED" in request.query.get("filter", "")
        items = [each for each in inventory[path] if (each["status"] == "DEPROVISIONED") is gone]
    elif path == "/api/v1/policies":
        items = [each for each in inventory[path] if each["type"] == request.query["type"]]
    elif path == "/api/v1/iam/assignees/users":
        items, headers = paged(request, inventory[path], PAGE_MAX, "after")
        return Answer({"value": items}, 200, headers)
    elif path in inventory:
        items = inventory[path]
    else:
        error = {"errorCode": "E0000007", "errorSummary": f"Not found: Resource not found: {path}", "errorCauses": []}
        return Answer({**error, "errorLink": "E0000007", "errorId": "none"}, 404)
    if not isinstance(items, list):
        return Answer(items)
    page, headers = paged(request, items, PAGE_MAX, "after")
    return Answer(page, 200, headers)


def _times(**more: Any) -> Item:
    return {"created": CREATED, "lastUpdated": UPDATED, **more}


def _inventory() -> dict[str, Any]:
    """Path → the items of a list, or the object."""
    found: dict[str, Any] = {
        "/api/v1/first-party-app-settings/admin-console": {
            "sessionIdleTimeoutMinutes": 15,
            "sessionMaxLifetimeMinutes": 720,
        },
        **_users(),
        **_groups(),
        **_applications(),
        **_policies(),
        **_devices(),
        "/api/v1/authenticators": _authenticators(),
        "/api/v1/trustedOrigins": [_origin(i) for i in range(4)],
        "/api/v1/zones": [_zone(name) for name in ZONES],
        "/api/v1/logStreams": _log_streams(),
        "/api/v1/api-tokens": [_token(i) for i in range(4)],
    }
    return found


def _type(name: str, key: str) -> Item:
    return _times(
        id=f"type-{key}",
        name=name,
        displayName=name.title(),
        description=f"A {name}",
        default=name == "user",
        createdBy="user-ada",
        lastUpdatedBy="user-ada",
    )


def _user(i: int, name: str) -> Item:
    return _times(
        id=f"user-{name}",
        status="DEPROVISIONED" if name == "gus" else "ACTIVE",
        activated=CREATED,
        statusChanged=UPDATED,
        lastLogin=UPDATED if i else None,
        passwordChanged=CREATED,
        type={"id": "type-default" if i < 5 else "type-guest"},
        profile={
            "login": f"{name}@acorn.example",
            "email": f"{name}@acorn.example",
            "firstName": name.title(),
            "lastName": "Acorn",
            "department": "Tasting" if i % 2 else None,
            "mobilePhone": None,
            **({"favourite_leaf": "sencha", "cups": i} if i < 2 else {}),
        },
    )


def _users() -> dict[str, Any]:
    def factor(kind: str, provider: str, name: str) -> Item:
        what = kind.replace(":", "-")
        return _times(id=f"{name}-{what}", factorType=kind, provider=provider, vendorName=provider, status="ACTIVE")

    def role(kind: str, name: str) -> Item:
        shown = kind.replace("_", " ").title()
        return _times(id=f"role-{name}-{kind}", type=kind, label=shown, status="ACTIVE", assignmentType="USER")

    roles = {name: [role("SUPER_ADMIN", name), role("APP_ADMIN", name)] for name in PEOPLE[:4]}
    return {
        "/api/v1/users": [_user(i, name) for i, name in enumerate(PEOPLE)],
        "/api/v1/meta/types/user": [_type("user", "default"), _type("guest", "guest")],
        "/api/v1/iam/assignees/users": [{"id": f"user-{name}"} for name in roles],
        **{f"/api/v1/users/user-{name}/roles": some for name, some in roles.items()},
        **{
            f"/api/v1/users/user-{name}/factors": [
                factor("push", "OKTA", name),
                factor("sms", "OKTA", name),
                factor("token:software:totp", "GOOGLE", name),
                factor("webauthn", "FIDO", name),
            ][: i + 1]
            for i, name in enumerate(PEOPLE[:5])
        },
        **{f"/api/v1/users/user-{name}/factors": [] for name in PEOPLE[5:6]},  # of the last one nothing is known
    }


def _groups() -> dict[str, Any]:
    def group(i: int, name: str) -> Item:
        kind = "BUILT_IN" if name == "everyone" else "OKTA_GROUP"
        return _times(
            id=f"group-{i}",
            lastMembershipUpdated=UPDATED,
            objectClass=["okta:user_group"],
            type=kind,
            profile={"name": name, "description": f"All {name}" if i else None},
        )

    def rule(i: int) -> Item:
        expression = {"type": "urn:okta:expression:1.0", "value": f'user.department=="{i}"'}
        return _times(
            id=f"rule-{i}",
            type="group_rule",
            name=f"into {GROUPS[1]}"[:50],
            status="ACTIVE" if i else "INACTIVE",
            conditions={"expression": expression, "people": {"users": {"exclude": ["user-eve"]}}} if i < 3 else None,
            actions={"assignUserToGroups": {"groupIds": ["group-1", "group-2"][: i + 1]}},
        )

    members = {0: PEOPLE[:6], 1: PEOPLE[:4], 2: PEOPLE[2:3], 3: PEOPLE[1:2]}
    role = _times(id="role-makers", type="HELP_DESK_ADMIN", label="Help desk", status="ACTIVE", assignmentType="GROUP")
    return {
        "/api/v1/groups": [group(i, name) for i, name in enumerate(GROUPS)],
        "/api/v1/groups/rules": [rule(i) for i in range(4)],
        **{
            f"/api/v1/groups/group-{i}/users": [_user(PEOPLE.index(name), name) for name in names]
            for i, names in members.items()
        },
        **{f"/api/v1/groups/group-{i}/roles": [role] if i == 2 else [] for i in range(len(GROUPS))},
    }


def _applications() -> dict[str, Any]:
    def application(name: str, mode: str | None, **more: Any) -> Item:
        return _times(
            id=f"app-{name}",
            name=name,
            label=name.replace("_", " ").title(),
            status="ACTIVE",
            signOnMode=mode,
            features=["PUSH_NEW_USERS", "INVENTED_FEATURE"] if mode else [],
            accessibility={"selfService": False, "errorRedirectUrl": None, "loginRedirectUrl": None},
            visibility={
                "appLinks": {f"{name}_link": True},
                "autoLaunch": False,
                "autoSubmitToolbar": False,
                "hide": {"iOS": False, "web": True},
            },
            **more,
        )

    template = {"template": "${source.login}", "type": "BUILT_IN"}
    uris = [f"https://pantry.example/{where}" for where in ("in", "again", "admin")]
    client = {
        "application_type": "web",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "redirect_uris": uris,
        "post_logout_redirect_uris": ["https://pantry.example/bye"],
        "consent_method": "TRUSTED",
        "idp_initiated_login": {"mode": "DISABLED", "default_scope": ["openid"]},
        "wildcard_redirect": "DISABLED",
    }
    saml = {
        "ssoAcsUrl": "https://signin.nowhere.example/saml",
        "audience": "urn:invented:aws",
        "recipient": "https://signin.nowhere.example/saml",
        "responseSigned": True,
        "assertionSigned": True,
        "signatureAlgorithm": "RSA_SHA256",
        "digestAlgorithm": "SHA256",
    }
    notes = {"notes": {"admin": "ask ada", "enduser": None}}
    aws, oidc, bookmark, directory = APPS
    return {
        "/api/v1/apps": [
            application(
                aws,
                "SAML_2_0",
                credentials={"userNameTemplate": template, "signing": {"kid": "not-a-key"}},
                settings={"signOn": saml, **notes},
            ),
            application(
                oidc,
                "OPENID_CONNECT",
                credentials={"oauthClient": {"client_id": "not-a-client"}, "userNameTemplate": template},
                settings={"oauthClient": client},
            ),
            application(
                bookmark, "BOOKMARK", settings={"app": {"url": "https://recipes.example", "requestIntegration": False}}
            ),
            application(directory, None),
        ],
        f"/api/v1/apps/app-{aws}/users": [{"id": f"user-{name}"} for name in PEOPLE[:4]],
        f"/api/v1/apps/app-{aws}/groups": [{"id": f"group-{i}"} for i in range(4)],
        f"/api/v1/apps/app-{oidc}/users": [{"id": "user-ada"}],
        f"/api/v1/apps/app-{oidc}/groups": [],
        f"/api/v1/apps/app-{bookmark}/users": [],
        f"/api/v1/apps/app-{bookmark}/groups": [{"id": "group-1"}],
        # the directory's assignments are not there: it was deleted a moment ago
        "/api/v1/apps/app-console": {"id": "app-console", "name": "saasure"},
    }


def _policies() -> dict[str, Any]:
    def policy(kind: str, i: int = 0, **more: Any) -> Item:
        groups = {"groups": {"include": ["group-0", "group-1"], "exclude": ["group-2"]}}
        name = kind.replace("_", " ").title()
        return _times(
            id=f"policy-{kind}-{i}",
            type=kind,
            name=f"{name} {i}",
            status="ACTIVE",
            priority=i + 1,
            system=i == 0,
            **{"description": None, "conditions": {"people": groups}, **more},
        )

    def rule(policy: str, i: int, **more: Any) -> Item:
        people = {
            "users": {"include": ["user-ada"], "exclude": ["user-ben"]},
            "groups": {"include": ["group-1"], "exclude": ["group-3"]},
        }
        network = {"connection": "ZONE", "include": ["zone-office"], "exclude": ["zone-blocked", "zone-gone"]}
        return _times(
            id=f"{policy}-rule-{i}",
            name=f"Rule {i}",
            status="ACTIVE",
            priority=i,
            system=False,
            conditions={"people": people, "network": network, "riskScore": {"level": "ANY"}} if i else None,
            **more,
        )

    signon = {"access": "ALLOW", "requireFactor": True, "session": {"maxSessionIdleMinutes": 60}}
    possession = {"possession": {"phishingResistant": "REQUIRED", "deviceBound": "REQUIRED"}}
    method = {"factorMode": "2FA", "type": "ASSURANCE", "reauthenticateIn": "PT2H", "constraints": [possession]}
    password = {
        "complexity": {
            "minLength": 12,
            "excludeAttributes": ["firstName"],
            "dictionary": {"common": {"exclude": True}},
        },
        "age": {"maxAgeDays": 90, "historyCount": 4},
        "lockout": {"maxAttempts": 5, "userLockoutNotificationChannels": ["EMAIL"]},
    }
    enrolled = [
        {"key": key, "enroll": {"self": how}} for key, how in (("okta_verify", "REQUIRED"), ("sms", "OPTIONAL"))
    ]
    policies = [
        *(policy("OKTA_SIGN_ON", i) for i in range(4)),
        policy("PASSWORD", settings={"password": password}),
        policy("MFA_ENROLL", settings={"authenticators": enrolled}),
        policy("ACCESS_POLICY", conditions=None),
        policy("PROFILE_ENROLLMENT", conditions=None),
    ]
    links = [
        {"_links": {"application": {"href": f"https://{HOST}/api/v1/apps/app-{app}"}}}
        for app in (*APPS, "console", "gone")
    ]
    actions: dict[str, Item] = {
        "OKTA_SIGN_ON": {"signon": signon},
        "PASSWORD": {"passwordChange": {"access": "ALLOW"}, "selfServiceUnlock": {"access": "DENY"}},
        "MFA_ENROLL": {"enroll": {"self": "CHALLENGE"}},
        "ACCESS_POLICY": {"appSignOn": {"access": "ALLOW", "verificationMethod": method}},
        "PROFILE_ENROLLMENT": {"profileEnrollment": {"access": "ALLOW"}},
    }
    return {
        "/api/v1/policies": policies,
        **{
            f"/api/v1/policies/{each['id']}/rules": [
                rule(each["id"], i, type=each["type"], actions=actions[each["type"]]) for i in range(2)
            ]
            for each in policies
        },
        "/api/v1/policies/policy-ACCESS_POLICY-0/mappings": links,
    }


def _devices() -> dict[str, Any]:
    def device(i: int) -> Item:
        owners = [
            {"created": CREATED, "managementStatus": "MANAGED", "screenLockType": "BIOMETRIC", "user": _user(0, name)}
            for name in PEOPLE[i : i + 2]
        ]
        return _times(
            id=f"device-{i}",
            status="ACTIVE" if i else "SUSPENDED",
            resourceType="UDDevice",
            resourceDisplayName={"value": f"Laptop {i}", "sensitive": False},
            profile={
                "displayName": f"Laptop {i}",
                "platform": "MACOS" if i else "WINDOWS",
                "registered": True,
                "managed": i != 1,
                "serialNumber": f"NOT-A-SERIAL-{i}",
                "osVersion": "1.2.3",
                "diskEncryptionType": "FULL",
                "secureHardwarePresent": True,
            },
            _embedded={"users": owners},
        )

    return {"/api/v1/devices": [device(i) for i in range(4)]}


def _authenticators() -> list[Item]:
    return [
        _times(id="auth-password", key="okta_password", name="Password", type="password", status="ACTIVE"),
        _times(
            id="auth-email",
            key="okta_email",
            name="Email",
            type="email",
            status="ACTIVE",
            settings={"allowedFor": "any", "tokenLifetimeInMinutes": 5},
        ),
        _times(
            id="auth-duo",
            key="duo",
            name="Duo",
            type="app",
            status="INACTIVE",
            provider={
                "type": "DUO",
                "configuration": {"host": "duo.invalid", "userNameTemplate": {"template": "oktaId"}},
            },
        ),
    ]


def _origin(i: int) -> Item:
    kinds = [{"type": "CORS"}, {"type": "REDIRECT"}, {"type": "IFRAME_EMBED", "allowedOktaApps": ["OKTA_ENDUSER"]}]
    return _times(
        id=f"origin-{i}",
        name=f"Origin {i}",
        origin=f"https://origin-{i}.example",
        status="ACTIVE",
        createdBy="user-ada",
        lastUpdatedBy="user-gone" if i else "user-ben",
        scopes=kinds[:i],
    )


def _zone(name: str) -> Item:
    shapes: dict[str, Item] = {
        "office": {"type": "IP", "gateways": [{"type": "CIDR", "value": "192.0.2.0/24"}], "proxies": None},
        "abroad": {"type": "DYNAMIC", "locations": [{"country": "XA", "region": "XA-01"}, {"country": "XB"}]},
        "blocked": {"type": "DYNAMIC_V2", "asns": {"include": ["64496"], "exclude": [64497]}, "usage": "BLOCKLIST"},
        "proxies": {"type": "DYNAMIC_V2", "ipServiceCategories": {"include": ["ANY_INVENTED"], "exclude": []}},
    }
    return _times(
        **{"id": f"zone-{name}", "name": name, "status": "ACTIVE", "system": False, "usage": "POLICY", **shapes[name]}
    )


def _log_streams() -> list[Item]:
    aws = {"accountId": "000000000000", "region": "us-east-1", "eventSourceName": "invented"}
    return [
        _times(id="stream-aws", name="To the bus", type="aws_eventbridge", status="ACTIVE", settings=aws),
        _times(
            id="stream-splunk",
            name="To Splunk",
            type="splunk_cloud_logstreaming",
            status="INACTIVE",
            settings={"host": "splunk.invalid", "edition": "aws"},
        ),
    ]


def _token(i: int) -> Item:
    network = {"connection": "ZONE", "include": ["zone-office"], "exclude": ["zone-blocked", "zone-abroad"]}
    return _times(
        id=f"token-{i}",
        name=f"token {i}",
        clientName="Okta API",
        userId=f"user-{PEOPLE[i]}",
        tokenWindow="P30D",
        expiresAt="2030-01-01T00:00:00.000Z",
        network=network if i else {"connection": "ANYWHERE"},
    )
