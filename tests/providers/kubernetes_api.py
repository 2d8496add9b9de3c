"""A stand-in for the API servers of two invented Kubernetes clusters, at one address: each has a path of its own.

Names are the same in both, so whatever forgets the cluster mixes them up. `south` has no Gateway API.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from providers.web_server import Answer, Request, Server, serving

CLUSTERS = ("north", "south")
PAGE_MAX = 3
CREATED = "2024-04-02T06:00:00Z"
_RBAC, _APPS, _BATCH = "/apis/rbac.authorization.k8s.io/v1", "/apis/apps/v1", "/apis/batch/v1"
_NETWORKING, _GATEWAY = "/apis/networking.k8s.io/v1", "/apis/gateway.networking.k8s.io/v1"

Item = dict[str, Any]


@contextlib.contextmanager
def start_kubernetes() -> Iterator[Server]:
    inventories = {name: _inventory(name) for name in CLUSTERS}

    def respond(request: Request) -> Answer:
        cluster, _, path = request.path.removeprefix("/").partition("/")
        found = inventories.get(cluster, {}).get(f"/{path}")
        if found is None:
            return Answer({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}, 404)
        return Answer(_page(request, found) if isinstance(found, list) else found)

    with serving(respond) as server:
        yield server


def kubernetes_arguments(server: Server, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment with which Cartography syncs from the stand-in, by a kubeconfig in `folder`."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": CLUSTERS[0],
        "clusters": [{"name": f"{name}-cluster", "cluster": {"server": f"{server.url}/{name}"}} for name in CLUSTERS],
        "users": [{"name": "nobody", "user": {"token": "not-a-token"}}],
        "contexts": [{"name": name, "context": {"cluster": f"{name}-cluster", "user": "nobody"}} for name in CLUSTERS],
    }
    file = folder / "kubeconfig.json"  # JSON is YAML
    file.write_text(json.dumps(config))
    return ["--selected-modules", "kubernetes", "--k8s-kubeconfig", str(file)], {}


def _page(request: Request, items: list[Item]) -> Item:
    items = list(request.left(items))
    first = int(request.query.get("continue", "0"))
    last = first + min(PAGE_MAX, int(request.query.get("limit", "500")))
    more = {"continue": str(last), "remainingItemCount": len(items) - last} if last < len(items) else {}
    return {
        "kind": "List",
        "apiVersion": "v1",
        "metadata": {"resourceVersion": "7", **more},
        "items": items[first:last],
    }


def _inventory(cluster: str) -> dict[str, Any]:
    """Path → the items of a list, or the object."""
    of = _Cluster(cluster)
    found: dict[str, Any] = {
        "/version/": of.version(),
        **of.core(),
        **of.storage(),
        **of.access(),
        **of.workloads(),
        "/api/v1/pods": of.pods(),
        **of.network(),
    }
    for namespace in found["/api/v1/namespaces"]:
        found[f"/api/v1/namespaces/{namespace['metadata']['name']}"] = namespace
    if cluster == "south":
        del found[f"{_GATEWAY}/gateways"], found[f"{_GATEWAY}/httproutes"]
    return found


class _Cluster:
    def __init__(self, name: str) -> None:
        self.name = name

    def uid(self, kind: str, name: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.name}/{kind}/{name}"))

    def item(self, kind: str, name: str, namespace: str | None = "shop", **fields: Any) -> Item:
        """An object; `metadata` among `fields` adds to its metadata, `owner` is its controller as (kind, name)."""
        extra = fields.pop("metadata", {})
        if owner := fields.pop("owner", None):
            reference = {"kind": owner[0], "name": owner[1], "uid": self.uid(*owner), "controller": True}
            extra = {**extra, "ownerReferences": [{"apiVersion": "v1", **reference}]}
        metadata = {"name": name, "uid": self.uid(kind, name), "creationTimestamp": CREATED, "resourceVersion": "42"}
        return {"metadata": {**metadata, **({"namespace": namespace} if namespace else {}), **extra}, **fields}

    def version(self) -> Item:
        return {
            **{"major": "1", "minor": "31", "gitVersion": "v1.31.0-invented", "goVersion": "go1.22"},
            **{"compiler": "gc", "platform": "linux/amd64", "gitCommit": "0", "gitTreeState": "clean"},
            **{"buildDate": CREATED},
        }

    def core(self) -> dict[str, Any]:
        def node(name: str, architecture: str, gpus: str) -> Item:
            info = dict.fromkeys(("machineID", "systemUUID", "bootID"), "0") | {
                **{"architecture": architecture, "operatingSystem": "linux", "osImage": "Invented Linux 4"},
                **{"kernelVersion": "6.9", "containerRuntimeVersion": "containerd://2", "kubeletVersion": "v1.31.0"},
                **{"kubeProxyVersion": "v1.31.0"},
            }
            capacity = {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": gpus}
            return self.item(
                "Node",
                name,
                None,
                metadata={"labels": {"zone": name[-1], "nvidia.com/gpu.product": "Invented-1"}},
                spec={"providerID": f"aws:///nowhere-1a/i-0{name}"},
                status={"nodeInfo": info, "capacity": capacity, "allocatable": {**capacity, "cpu": "3900m"}},
            )

        def secret(name: str, kind: str = "Opaque", namespace: str = "shop", **more: Any) -> Item:
            return self.item("Secret", f"{namespace}-{name}", namespace, type=kind, metadata={"name": name}, **more)

        namespaces = ("kube-system", "shop", "ledger", "empty")
        phases = {"empty": "Terminating"}
        return {
            "/api/v1/namespaces": [
                self.item("Namespace", name, None, status={"phase": phases.get(name, "Active")}) for name in namespaces
            ],
            "/api/v1/nodes": [node(f"node-{i}", "arm64" if i == 3 else "amd64", str(i)) for i in range(4)],
            "/api/v1/secrets": [
                secret("till"),
                secret("till", namespace="ledger"),
                secret("counter-tls", "kubernetes.io/tls"),
                secret("shared", owner=("Deployment", "till")),
                secret("unused"),
            ],
        }

    def storage(self) -> dict[str, Any]:
        def volume(name: str, driver: str, handle: str, claim: str) -> Item:
            spec = {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "quick",
                "volumeMode": "Filesystem",
                "csi": {"driver": driver, "volumeHandle": handle},
                "claimRef": {"namespace": "shop", "name": claim},
            }
            return self.item("PersistentVolume", name, None, spec=spec, status={"phase": "Bound"})

        def claim(name: str, volume: str | None, size: str = "1.5Gi") -> Item:
            spec = {
                "storageClassName": "quick",
                "volumeName": volume,
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": size}},
                "volumeMode": "Filesystem",
            }
            phase = "Bound" if volume else "Pending"
            return self.item("Claim", name, spec=spec, status={"phase": phase}, metadata={"labels": {"for": "till"}})

        kinds = (("quick", "ebs.csi.aws.com", {"type": "gp3"}), ("slow", "nfs.invented.example", None))
        return {
            "/apis/storage.k8s.io/v1/storageclasses": [
                self.item(
                    "StorageClass",
                    name,
                    None,
                    provisioner=provisioner,
                    parameters=parameters,
                    mountOptions=["noatime", "discard"] if parameters else None,
                    reclaimPolicy="Delete",
                    volumeBindingMode="WaitForFirstConsumer",
                    allowVolumeExpansion=parameters is not None,
                )
                for name, provisioner, parameters in kinds
            ],
            "/api/v1/persistentvolumes": [
                volume("pv-0", "ebs.csi.aws.com", "vol-0invented", "drawer"),
                volume("pv-1", "nfs.invented.example", "share-1", "blocks"),
            ],
            "/api/v1/persistentvolumeclaims": [
                claim("drawer", "pv-0"),
                claim("blocks", "pv-1", "500M"),
                claim("waiting", None),
                claim("counter-0-scratch", None),
            ],
        }

    def access(self) -> dict[str, Any]:
        def account(name: str, namespace: str, annotations: dict[str, str] | None = None) -> Item:
            more = {"name": name, "annotations": annotations}
            return self.item("ServiceAccount", f"{namespace}-{name}", namespace, metadata=more)

        def rules(*verbs: str) -> list[Item]:
            some = {"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": list(verbs)}
            return [some, {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]

        def binding(kind: str, name: str, role: tuple[str, str], subjects: list[Item], **more: Any) -> Item:
            reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role[0], "name": role[1]}
            return self.item(kind, name, roleRef=reference, subjects=subjects, **more)

        till = {"kind": "ServiceAccount", "name": "till", "namespace": "shop"}
        user, group = {"kind": "User", "name": "ada@acorn.example"}, {"kind": "Group", "name": "keepers"}
        return {
            "/api/v1/serviceaccounts": [
                account("default", "shop"),
                account("till", "shop", {"eks.amazonaws.com/role-arn": "arn:aws:iam::000000000000:role/till"}),
                account("default", "ledger"),
                account("default", "kube-system"),
            ],
            f"{_RBAC}/roles": [
                self.item("Role", "reader", rules=rules("list", "get", "watch")),
                self.item("Role", "writer", rules=rules("create", "delete")),
                self.item("Role", "idle", rules=None),
            ],
            f"{_RBAC}/rolebindings": [
                binding("RoleBinding", "reads", ("Role", "reader"), [till, user, group]),
                binding("RoleBinding", "writes", ("Role", "writer"), [till]),
                binding("RoleBinding", "views", ("ClusterRole", "view"), [{**group, "name": "guests"}]),
                binding("RoleBinding", "nobody", ("Role", "reader"), []),
            ],
            f"{_RBAC}/clusterroles": [
                self.item("ClusterRole", name, None, rules=rules(*verbs))
                for name, verbs in (("view", ("get",)), ("admin", ("*",)), ("audit", ("list",)), ("unused", ()))
            ],
            f"{_RBAC}/clusterrolebindings": [
                binding("ClusterRoleBinding", "all-view", ("ClusterRole", "view"), [group, till], metadata={}),
                binding("ClusterRoleBinding", "one-admin", ("ClusterRole", "admin"), [{**user, "name": "root"}]),
                binding("ClusterRoleBinding", "lost", ("ClusterRole", "gone"), [{**till, "name": "gone"}]),
            ],
        }

    def workloads(self) -> dict[str, Any]:
        def controller(kind: str, name: str, **more: Any) -> Item:
            spec = {"replicas": 2, "serviceName": name, **more.pop("spec", {})}
            spec |= {"selector": {"matchLabels": {"app": name}}, "template": {}}
            status = {"replicas": 2, "readyReplicas": 1, "availableReplicas": 1, **more.pop("status", {})}
            return self.item(kind, name, spec=spec, status=status, metadata={"labels": {"app": name}}, **more)

        daemons = ("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady")
        return {
            f"{_APPS}/deployments": [controller("Deployment", name) for name in ("till", "front", "spare", "idle")],
            f"{_APPS}/replicasets": [
                controller("ReplicaSet", "till-1", owner=("Deployment", "till")),
                controller("ReplicaSet", "front-1", owner=("Deployment", "front")),
                controller("ReplicaSet", "alone"),
            ],
            f"{_APPS}/statefulsets": [controller("StatefulSet", "counter")],
            f"{_APPS}/daemonsets": [controller("DaemonSet", "watcher", status=dict.fromkeys(daemons, 3))],
            f"{_BATCH}/cronjobs": [
                self.item("CronJob", "nightly", spec={"schedule": "0 3 * * *", "suspend": False, "jobTemplate": {}})
            ],
            f"{_BATCH}/jobs": [
                controller("Job", "nightly-1", owner=("CronJob", "nightly"), status={"succeeded": 1}),
                controller("Job", "once", spec={"completions": 3, "parallelism": 1}, status={"failed": 2, "active": 1}),
            ],
        }

    def pods(self) -> list[Item]:
        mounts = [
            {"name": "drawer", "mountPath": "/data"},
            {"name": "drawer", "mountPath": "/read", "readOnly": True, "subPath": "old"},
            {"name": "keys", "mountPath": "/keys"},
        ]
        volumes = [
            {"name": "drawer", "persistentVolumeClaim": {"claimName": "drawer"}},
            {"name": "blocks", "persistentVolumeClaim": {"claimName": "blocks"}},
            {"name": "keys", "secret": {"secretName": "till"}},
            {"name": "certificates", "secret": {"secretName": "counter-tls"}},
            {"name": "host", "hostPath": {"path": "/var/log"}},
        ]
        secrets = [
            {"name": "PIN", "valueFrom": {"secretKeyRef": {"name": "till", "key": "pin"}}},
            {"name": "MODE", "value": "cash"},
        ]
        till = self.container(
            "till", volumeMounts=mounts, env=secrets, envFrom=[{"secretRef": {"name": "shared"}}], guarded=True
        )
        blocks = self.container("blocks", volumeDevices=[{"name": "blocks", "devicePath": "/dev/x"}])
        scratch: Item = {"volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]}
        counter = self.container("counter", volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}])
        return [
            self.pod("till-1-a", [till, blocks], ("ReplicaSet", "till-1"), volumes=volumes, serviceAccountName="till"),
            self.pod("till-1-b", [self.container("till")], ("ReplicaSet", "till-1"), nodeName="node-3"),
            self.pod("front-1-a", [self.container("front"), self.container("side")], ("ReplicaSet", "front-1")),
            self.pod("alone-a", [self.container("alone")], ("ReplicaSet", "alone"), nodeName=None),
            self.pod("counter-0", [counter], ("StatefulSet", "counter"), **scratch),
            self.pod(
                "watcher-a", [self.container("watcher")], ("DaemonSet", "watcher"), hostNetwork=True, hostPID=True
            ),
            self.pod("nightly-1-a", [self.container("nightly", "terminated")], ("Job", "nightly-1")),
            self.pod("custom-a", [self.container("custom", "waiting")], ("Invention", "custom")),
            self.pod("lonely", [self.container("lonely")], None, namespace="ledger"),
        ]

    def container(self, name: str, state: str = "running", *, guarded: bool = False, **more: Any) -> Item:
        """`state` is taken out again by `pod`, for the status."""
        context = {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "runAsUser": 1_000,
            "seccompProfile": {"type": "RuntimeDefault"},
            "capabilities": {"add": ["NET_BIND_SERVICE", "CHOWN"], "drop": ["ALL"]},
        }
        ports = [{"containerPort": 8080, "name": "http", "protocol": "TCP"}, {"containerPort": 53, "hostPort": 5353}]
        resources = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "1", "nvidia.com/gpu": "1"}}
        return {
            "name": name,
            "image": f"registry.example/{name}:1.0",
            "imagePullPolicy": "IfNotPresent",
            "state": state,
            **({"securityContext": context, "ports": ports, "resources": resources} if guarded else {}),
            **more,
        }

    def pod(
        self, name: str, containers: list[Item], owner: tuple[str, str] | None, namespace: str = "shop", **spec: Any
    ) -> Item:
        moments = {"running": {"startedAt": CREATED}, "terminated": {"exitCode": 0}, "waiting": {"reason": "Pulling"}}
        statuses = []
        for each in containers:
            state = each.pop("state")
            digest = self.uid("Image", each["name"]).replace("-", "") * 2
            statuses.append(
                {
                    **{"name": each["name"], "image": each["image"], "restartCount": 0, "ready": state == "running"},
                    **{"started": state == "running", "state": {state: moments[state]}},
                    "imageID": f"registry.example/{each['name']}@sha256:{digest}" if state != "waiting" else "",
                }
            )
        app = name.partition("-")[0]
        return self.item(
            "Pod",
            name,
            namespace,
            owner=owner,
            metadata={"labels": {"app": app, "tier": "back" if app == "till" else "front"}},
            spec={"containers": containers, "nodeName": "node-1", **spec},
            status={"phase": "Running", "containerStatuses": statuses},
        )

    def network(self) -> dict[str, Any]:
        def service(name: str, kind: str, selector: dict[str, str] | None, ingress: list[Item] | None = None) -> Item:
            spec = {"type": kind, "selector": selector, "clusterIP": f"10.0.0.{len(name)}"}
            return self.item("Service", name, spec=spec, status={"loadBalancer": {"ingress": ingress}})

        def backend(name: str) -> Item:
            return {"service": {"name": name, "port": {"number": 80}}}

        def policy(name: str, selector: Item, **rules: Any) -> Item:
            return self.item("NetworkPolicy", name, spec={"podSelector": selector, **rules})

        outside = [{"hostname": f"{self.name}-LB.nowhere.example", "ports": [{"port": 443, "protocol": "TCP"}]}]
        among = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["till", "front"]}]}
        peers = [{"podSelector": {"matchLabels": {"app": "front"}}}, {"namespaceSelector": {}}]
        block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
        paths = [{"path": f"/{name}", "pathType": "Prefix", "backend": backend(name)} for name in ("till", "front")]
        gateways = {"gatewayClassName": "invented", "listeners": []}
        return {
            "/api/v1/services": [
                service("till", "ClusterIP", {"app": "till"}),
                service("front", "LoadBalancer", {"tier": "front"}, outside),
                service("elsewhere", "ClusterIP", None),
                service("nothing", "NodePort", {"app": "absent"}),
            ],
            f"{_NETWORKING}/networkpolicies": [
                policy("closed", {}, policyTypes=["Ingress", "Egress"]),
                policy("open", among, ingress=[{"from": peers, "ports": [{"port": 8080}]}], egress=[{"to": [block]}]),
                policy("named", {"matchLabels": {"app": "till"}}, ingress=[{"ports": [{"port": "http"}]}]),
                policy("none", {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}),
            ],
            f"{_NETWORKING}/ingresses": [
                self.item(
                    "Ingress",
                    "door",
                    metadata={"annotations": {"alb.ingress.kubernetes.io/group.name": "doors"}},
                    spec={
                        "ingressClassName": "alb",
                        "rules": [{"host": "shop.example", "http": {"paths": paths}}, {"host": None, "http": None}],
                        "defaultBackend": backend("elsewhere"),
                    },
                    status={"loadBalancer": {"ingress": [{"hostname": "Door.nowhere.example"}]}},
                )
            ],
            f"{_GATEWAY}/gateways": [
                self.item("Gateway", name, spec=gateways) for name in ("gate", "back", "shut", "x")
            ],
            f"{_GATEWAY}/httproutes": [
                self.item(
                    "HTTPRoute",
                    "to-till",
                    spec={
                        "parentRefs": [{"name": "gate"}, {"name": "back", "namespace": "shop"}],
                        "hostnames": ["till.example"],
                        "rules": [{"backendRefs": [{"name": "till"}, {"name": "front", "kind": "Service"}]}],
                    },
                )
            ],
        }
