"""Everything that is in a cloud, as values that can be compared."""

from __future__ import annotations

from typing import Any

from stacklab.cloud.connection import Connection

JSON = {"format": "json"}
COLLECTIONS: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
    ("identity", ("projects",), {}),
    ("identity", ("users",), {}),
    ("identity", ("services",), {}),
    ("identity", ("endpoints",), {}),
    ("network", ("networks",), {}),
    ("network", ("subnets",), {}),
    ("network", ("routers",), {}),
    ("network", ("ports",), {}),
    ("network", ("floatingips",), {}),
    ("network", ("security-groups",), {}),
    ("image", ("images",), {}),
    ("compute", ("flavors",), {"is_public": "None"}),
    ("compute", ("servers",), {"all_tenants": "1"}),
    ("block-storage", ("volumes",), {"all_tenants": "1"}),
    ("block-storage", ("snapshots",), {"all_tenants": "1"}),
]


def inventory(admin: Connection) -> dict[str, list[str]]:
    """Ids of everything, and who has which role where."""
    found = {
        path[0]: sorted(row["id"] for row in _rows(admin, service, path, query)) for service, path, query in COLLECTIONS
    }
    found["security-groups"] = _without_living_defaults(admin, found["projects"])
    roles = admin.get("identity", "role_assignments")["role_assignments"]
    found["roles"] = sorted(str((role["role"], role["scope"], role.get("user"), role.get("group"))) for role in roles)
    found["containers"], found["objects"] = _learners_objects(admin)
    found["object files"] = [str(_object_files(admin))]
    providers = _placement(admin, "/resource_providers")["resource_providers"]
    found["usages"] = [
        str(_placement(admin, f"/resource_providers/{provider['uuid']}/usages")["usages"]) for provider in providers
    ]
    return found


def _learners_objects(admin: Connection) -> tuple[list[str], list[str]]:
    """What the learner's account in Swift holds. Only its own users may look into it, so without any nothing is seen."""
    query = {"include_names": "true"}
    roles = admin.get("identity", "role_assignments", **query)["role_assignments"]
    mine = [role for role in roles if role["scope"].get("project", {}).get("name") == "lab-project" and "user" in role]
    if not any(role["user"]["name"] == "learner" for role in mine):
        return [], []
    learner = Connection(admin.clouds_file, "lab-learner")
    containers = [row["name"] for row in learner.fetch("GET", learner.endpoint("object-store"), query=JSON).json()]
    objects = []
    for container in containers:
        listed = learner.fetch("GET", learner.address("object-store", container), query=JSON).json()
        # A manifest's own sum has the times of its segments in it; `slo_etag` is that of the segments' sums.
        sums = ((row["name"], row.get("slo_etag", row["hash"]), row["bytes"]) for row in listed)
        objects += [f"{container}/{name} {etag} {size}" for name, etag, size in sums]
    return sorted(containers), sorted(objects)


def _object_files(admin: Connection) -> int:
    """How many objects lie on the disk of the embedded cloud's Swift, also those that nobody can ask for any more."""
    return len(list((admin.clouds_file.parent / "swift" / "disk" / "objects").rglob("*.data")))


def _without_living_defaults(admin: Connection, projects: list[str]) -> list[str]:
    """Neutron gives a project its group "default" as soon as anybody looks (Nova's own user does, while it boots a server);
    only one whose project is gone would be something left behind."""
    groups = _rows(admin, "network", ("security-groups",), {})
    return sorted(row["id"] for row in groups if row["name"] != "default" or row["project_id"] not in projects)


def outline(admin: Connection) -> dict[str, list[str]]:
    """Names and states without ids, times and addresses that differ from run to run."""
    wanted = (
        "name",
        "status",
        "cidr",
        "size",
        "vcpus",
        "ram",
        "disk_format",
        "admin_state_up",
        "enabled",
        "device_owner",
    )
    found = {}
    for service, path, query in COLLECTIONS:
        detail = (*path, "detail") if path[0] in ("servers", "volumes", "flavors") else path
        rows = _rows(admin, service, detail, query)
        found[path[0]] = sorted(str({key: row[key] for key in wanted if key in row}) for row in rows)
    rules = _rows(admin, "network", ("security-group-rules",), {})
    shown = ("direction", "ethertype", "protocol", "port_range_min", "port_range_max", "remote_ip_prefix")
    found["rules"] = sorted(str([rule[key] for key in shown]) for rule in rules)
    found["containers"], found["objects"] = _learners_objects(admin)
    servers = _rows(admin, "compute", ("servers", "detail"), {"all_tenants": "1"})
    found["server details"] = [
        str((server["key_name"], sorted(server["addresses"]), server["security_groups"])) for server in servers
    ]
    project = next(row["id"] for row in _rows(admin, "identity", ("projects",), {}) if row["name"] == "lab-project")
    for service, collection in (
        ("compute", "os-quota-sets"),
        ("network", "quotas"),
        ("block-storage", "os-quota-sets"),
    ):
        quota = next(iter(admin.get(service, collection, project).values()))
        found[f"{service} quota"] = sorted(f"{key}={value}" for key, value in quota.items() if key != "id")
    return found


def _rows(admin: Connection, service: str, path: tuple[str, ...], query: dict[str, str]) -> list[dict[str, Any]]:
    answer = admin.get(service, *path, **query)
    rows: list[dict[str, Any]] = answer[path[0].replace("-", "_") if service == "network" else path[0]]
    return rows


def _placement(admin: Connection, path: str) -> Any:
    answer = admin.sdk.session.get(path, endpoint_filter={"service_type": "placement", "interface": "public"})
    return answer.json()
