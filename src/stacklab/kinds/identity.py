"""Keystone: projects, users, and the roles that tie them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from stacklab.errors import CloudRefused
from stacklab.kinds.context import DOMAIN, Absent, Context, Thing
from stacklab.kinds.declaration import Name, Params, Ref, Refers, SecretRef
from stacklab.kinds.kind import Difference, Kind, differing
from stacklab.kinds.named import NamedKind, NamedParams
from stacklab.kinds.narration import Command, Later, Request


class ProjectParams(NamedParams):
    """A project of the default domain."""

    description: str = ""
    """What it is for, in words."""


class Project(NamedKind[ProjectParams]):
    """A project (once called tenant): what owns everything else, and what quotas are set on."""

    name = "project"
    params = ProjectParams
    menus = "Identity ▸ Projects ▸ Create Project: Name {name}"

    def query(self, context: Context, name: str) -> dict[str, str]:
        return {"name": name, "domain_id": DOMAIN}

    def commands(self, context: Context, p: ProjectParams) -> list[Command]:
        return [Command(("project", "create", "--domain", DOMAIN, "--description", p.description, p.name))]

    def requests(self, context: Context, p: ProjectParams) -> list[Request]:
        body = {"project": {"name": p.name, "domain_id": DOMAIN, "description": p.description, "enabled": True}}
        return [Request("POST", "identity", ("projects",), body)]

    def compare(self, context: Context, p: ProjectParams, thing: Thing) -> list[Difference]:
        return differing([("enabled", True, thing["enabled"])])

    def remove(self, context: Context, thing: Thing) -> bool:
        require_empty(context, thing["id"])
        # Neutron gives every project a group "default" the first time it is used; it outlives the project unless removed.
        groups = context.admin.get("network", "security-groups", project_id=thing["id"], name="default")
        removed = context.admin.delete("identity", "projects", thing["id"])
        for group in groups["security_groups"]:
            context.admin.delete("network", "security-groups", group["id"])
        return removed


def require_empty(context: Context, project: str) -> None:
    """Raises CloudRefused with what is still in a project; Keystone would let the project go all the same."""
    every = {"all_tenants": "1", "project_id": project}
    left_over = [
        *(("instance", server) for server in context.admin.get("compute", "servers", **every)["servers"]),
        *(("volume", volume) for volume in context.admin.get("block-storage", "volumes", "detail", **every)["volumes"]),
        *(("network", network) for network in context.admin.get("network", "networks", project_id=project)["networks"]),
        *(("router", router) for router in context.admin.get("network", "routers", project_id=project)["routers"]),
        *(("image", image) for image in context.admin.get("image", "images", owner=project)["images"]),
    ]
    if left_over:
        left = ", ".join(f"{kind} {row['name'] or row['id']}" for kind, row in left_over)
        raise CloudRefused(f"the project still holds {left}")


class UserParams(NamedParams):
    """A user of the default domain."""

    password: SecretRef
    """What they log in with."""
    project: Annotated[Ref, Refers("project")] | None = None
    """The project that they work in if they name none."""


class User(NamedKind[UserParams]):
    """A user: somebody who can authenticate. Without a role on a project that is all they can do."""

    name = "user"
    params = UserParams
    menus = "Identity ▸ Users ▸ Create User: User Name {name}, a password, Primary Project"

    def query(self, context: Context, name: str) -> dict[str, str]:
        return {"name": name, "domain_id": DOMAIN}

    def commands(self, context: Context, p: UserParams) -> list[Command]:
        project = ("--project", context.name_of(p.project)) if p.project else ()
        words = ("user", "create", "--domain", DOMAIN, *project, "--password-prompt", p.name)
        return [Command(words, typed=context.secret(p.password))]

    def requests(self, context: Context, p: UserParams) -> list[Request]:
        user = {"name": p.name, "domain_id": DOMAIN, "password": context.secret(p.password), "enabled": True}
        if p.project:
            user["default_project_id"] = context.id_of(p.project, "project")
        return [Request("POST", "identity", ("users",), {"user": user})]

    def compare(self, context: Context, p: UserParams, thing: Thing) -> list[Difference]:
        differences = differing([("enabled", True, thing["enabled"])])
        secret = context.secret(p.password)
        if not differences and not _lets_in(context, thing["id"], secret.value):
            differences.append(Difference("password", f"${secret.name} (lab password)", "another one"))
        return differences


def _implied(context: Context, role: str) -> set[str]:
    """Ids of all roles that come with this one (admin brings manager, that member, that reader)."""
    implied: set[str] = set()
    todo = [role]
    while todo:
        inference = context.admin.get("identity", "roles", todo.pop(), "implies")["role_inference"]
        new = {row["id"] for row in inference["implies"]} - implied
        implied |= new
        todo += new
    return implied


def _lets_in(context: Context, user: str, password: str) -> bool:
    """Whether Keystone takes this password of this user's. Raises CloudUnreachable, CloudRefused."""
    identity = {"methods": ["password"], "password": {"user": {"id": user, "password": password}}}
    body = {"auth": {"identity": identity, "scope": "unscoped"}}
    try:
        context.admin.fetch("POST", f"{context.admin.auth_url}/auth/tokens", json=body, token=False)
    except CloudRefused as error:
        if error.status != 401:
            raise
        return False
    return True


class RoleParams(Params):
    """Who gets which role where."""

    user: Annotated[Ref, Refers("user")]
    """Who gets it."""
    project: Annotated[Ref, Refers("project")]
    """Where it holds."""
    role: Name
    """The role's name: member."""


class RoleAssignment(Kind[RoleParams]):
    """A role for a user on a project: this, not the user's existence, is what lets them act."""

    name = "role"
    params = RoleParams
    words = "role {role}"
    menus = "Identity ▸ Projects ▸ (the project's menu) Manage Members ▸ + beside the user ▸ role {role}"
    expects = "the user has role {role} on the project"

    def _role_id(self, context: Context, role: str) -> str:
        roles = context.admin.get("identity", "roles", name=role)["roles"]
        if not roles:
            raise Absent(f"role {role}")
        return str(roles[0]["id"])

    def commands(self, context: Context, p: RoleParams) -> list[Command]:
        user, project = context.name_of(p.user), context.name_of(p.project)
        return [Command(("role", "add", "--user", user, "--project", project, p.role))]

    def requests(self, context: Context, p: RoleParams) -> list[Request]:
        user, project = context.id_of(p.user, "user"), context.id_of(p.project, "project")
        return [
            Request("GET", "identity", ("roles",), query={"name": p.role}, saves={"ROLE_ID": ("roles", 0, "id")}),
            Request("PUT", "identity", ("projects", project, "users", user, "roles", Later("ROLE_ID"))),
        ]

    def find_all(self, context: Context, p: RoleParams) -> Iterable[Thing]:
        user, project = context.thing(p.user, "user")["id"], context.thing(p.project, "project")["id"]
        # "effective" also shows roles that come through a group or an implied role: granted is granted.
        query = {"user.id": user, "scope.project.id": project, "effective": "true"}
        assignments = context.admin.get("identity", "role_assignments", **query)["role_assignments"]
        role = self._role_id(context, p.role)
        return [
            {"id": role, "name": p.role, "user": user, "project": project}
            for assignment in assignments
            if assignment["role"]["id"] == role
        ][:1]

    def compare(self, context: Context, p: RoleParams, thing: Thing) -> list[Difference]:
        query = {"user.id": thing["user"], "scope.project.id": thing["project"], "include_names": "true"}
        given = context.admin.get("identity", "role_assignments", **query)["role_assignments"]
        others = {assignment["role"]["id"]: assignment["role"]["name"] for assignment in given}
        stronger = [
            name for other, name in others.items() if other != thing["id"] and thing["id"] in _implied(context, other)
        ]
        return [Difference("role", p.role, f"{name}, which can do more") for name in stronger]

    def undo_data(self, context: Context, p: RoleParams, thing: Thing) -> Thing:
        return thing

    def remove(self, context: Context, thing: Thing) -> bool:
        require_empty(context, thing["project"])  # else whoever has things there could not even look at them
        path = ("projects", thing["project"], "users", thing["user"], "roles", thing["id"])
        return context.admin.delete("identity", *path)

    def show_command(self, context: Context, p: RoleParams) -> Command:
        user, project = context.name_of(p.user), context.name_of(p.project)
        return Command(("role", "assignment", "list", "--user", user, "--project", project, "--names"))


KINDS: list[Kind[Any]] = [Project(), User(), RoleAssignment()]
