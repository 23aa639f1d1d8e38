"""Keystone: projects, users, and the roles that tie them together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from stacklab.errors import CloudRefused
from stacklab.kinds.declaration import Name, Params, Ref, Refers, SecretRef
from stacklab.kinds.kind import Absent, Difference, Kind, Scene, Thing, differing
from stacklab.kinds.narration import Command, Later, Request

DOMAIN = "default"


class ProjectParams(Params):
    name: Name
    description: str = ""


class Project(Kind[ProjectParams]):
    """A project (once called tenant): what owns everything else, and what quotas are set on."""

    name = "project"
    params = ProjectParams

    def title(self, p: ProjectParams) -> str:
        return f"project {p.name}"

    def horizon(self, p: ProjectParams) -> str:
        return f"Identity ▸ Projects ▸ Create Project: Name {p.name}"

    def commands(self, scene: Scene, p: ProjectParams) -> list[Command]:
        return [Command(("project", "create", "--domain", DOMAIN, "--description", p.description, p.name))]

    def requests(self, scene: Scene, p: ProjectParams) -> list[Request]:
        body = {"project": {"name": p.name, "domain_id": DOMAIN, "description": p.description, "enabled": True}}
        return [Request("POST", "identity", ("projects",), body)]

    def create(self, scene: Scene, p: ProjectParams) -> None:
        scene.who.sdk.identity.create_project(name=p.name, domain_id=DOMAIN, description=p.description)

    def candidates(self, scene: Scene, p: ProjectParams) -> Iterable[Thing]:
        return find_projects(scene, p.name)

    def compare(self, scene: Scene, p: ProjectParams, thing: Thing) -> list[Difference]:
        return differing([("enabled", True, thing["enabled"])])

    def remove(self, scene: Scene, thing: Thing) -> bool:
        require_empty(scene, thing["id"])
        # Neutron gives every project a group "default" the first time it is used; it outlives the project unless removed.
        groups = scene.admin.get("network", "security-groups", project_id=thing["id"], name="default")
        removed = scene.admin.delete("identity", "projects", thing["id"])
        for group in groups["security_groups"]:
            scene.admin.delete("network", "security-groups", group["id"])
        return removed

    def look(self, scene: Scene, p: ProjectParams) -> Command:
        return Command(("project", "show", p.name))

    def named(self, scene: Scene, name: str) -> Thing | None:
        return next(iter(find_projects(scene, name)), None)


def require_empty(scene: Scene, project: str) -> None:
    """Raises CloudRefused with what is still in a project; Keystone would let the project go all the same."""
    every = {"all_tenants": "1", "project_id": project}
    found = [
        *(("instance", one) for one in scene.admin.get("compute", "servers", **every)["servers"]),
        *(("volume", one) for one in scene.admin.get("block-storage", "volumes", "detail", **every)["volumes"]),
        *(("network", one) for one in scene.admin.get("network", "networks", project_id=project)["networks"]),
        *(("router", one) for one in scene.admin.get("network", "routers", project_id=project)["routers"]),
        *(("image", one) for one in scene.admin.get("image", "images", owner=project)["images"]),
    ]
    if found:
        left = ", ".join(f"{kind} {one['name'] or one['id']}" for kind, one in found)
        raise CloudRefused(f"the project still holds {left}")


def find_projects(scene: Scene, name: str) -> list[Thing]:
    """Projects of this name in the default domain (names are unique there, so one at most)."""
    found: list[Thing] = scene.admin.get("identity", "projects", name=name, domain_id=DOMAIN)["projects"]
    return found


def find_users(scene: Scene, name: str) -> list[Thing]:
    """Users of this name in the default domain (one at most)."""
    found: list[Thing] = scene.admin.get("identity", "users", name=name, domain_id=DOMAIN)["users"]
    return found


class UserParams(Params):
    name: Name
    password: SecretRef
    project: Annotated[Ref, Refers("project")] | None = None


class User(Kind[UserParams]):
    """A user: somebody who can authenticate. Without a role on a project that is all they can do."""

    name = "user"
    params = UserParams

    def title(self, p: UserParams) -> str:
        return f"user {p.name}"

    def horizon(self, p: UserParams) -> str:
        return f"Identity ▸ Users ▸ Create User: User Name {p.name}, a password, Primary Project"

    def commands(self, scene: Scene, p: UserParams) -> list[Command]:
        project = ("--project", scene.called(p.project)) if p.project else ()
        words = ("user", "create", "--domain", DOMAIN, *project, "--password-prompt", p.name)
        return [Command(words, typed=scene.secret(p.password))]

    def requests(self, scene: Scene, p: UserParams) -> list[Request]:
        user = {"name": p.name, "domain_id": DOMAIN, "password": scene.secret(p.password), "enabled": True}
        if p.project:
            user["default_project_id"] = scene.id_of(p.project, "project")
        return [Request("POST", "identity", ("users",), {"user": user})]

    def create(self, scene: Scene, p: UserParams) -> None:
        project = scene.thing(p.project, "project")["id"] if p.project else None
        password = scene.secret(p.password).value
        scene.who.sdk.identity.create_user(
            name=p.name, domain_id=DOMAIN, password=password, is_enabled=True, default_project_id=project
        )

    def candidates(self, scene: Scene, p: UserParams) -> Iterable[Thing]:
        return find_users(scene, p.name)

    def compare(self, scene: Scene, p: UserParams, thing: Thing) -> list[Difference]:
        return differing([("enabled", True, thing["enabled"])])

    def remove(self, scene: Scene, thing: Thing) -> bool:
        return scene.admin.delete("identity", "users", thing["id"])

    def look(self, scene: Scene, p: UserParams) -> Command:
        return Command(("user", "show", p.name))

    def named(self, scene: Scene, name: str) -> Thing | None:
        return next(iter(find_users(scene, name)), None)


class RoleParams(Params):
    user: Annotated[Ref, Refers("user")]
    project: Annotated[Ref, Refers("project")]
    role: Name


class RoleAssignment(Kind[RoleParams]):
    """A role for a user on a project: this, not the user's existence, is what lets them act."""

    name = "role"
    params = RoleParams

    def title(self, p: RoleParams) -> str:
        return f"role {p.role}"

    def horizon(self, p: RoleParams) -> str:
        return f"Identity ▸ Projects ▸ (the project's menu) Manage Members ▸ + beside the user ▸ role {p.role}"

    def _role_id(self, scene: Scene, role: str) -> str:
        roles = scene.admin.get("identity", "roles", name=role)["roles"]
        if not roles:
            raise Absent(f"role {role}")
        return str(roles[0]["id"])

    def commands(self, scene: Scene, p: RoleParams) -> list[Command]:
        user, project = scene.called(p.user), scene.called(p.project)
        return [Command(("role", "add", "--user", user, "--project", project, p.role))]

    def requests(self, scene: Scene, p: RoleParams) -> list[Request]:
        user, project = scene.id_of(p.user, "user"), scene.id_of(p.project, "project")
        return [
            Request("GET", "identity", ("roles",), query={"name": p.role}, saves={"ROLE_ID": ("roles", 0, "id")}),
            Request("PUT", "identity", ("projects", project, "users", user, "roles", Later("ROLE_ID"))),
        ]

    def create(self, scene: Scene, p: RoleParams) -> None:
        scene.who.sdk.identity.assign_project_role_to_user(
            scene.thing(p.project, "project")["id"], scene.thing(p.user, "user")["id"], self._role_id(scene, p.role)
        )

    def candidates(self, scene: Scene, p: RoleParams) -> Iterable[Thing]:
        user, project = scene.thing(p.user, "user")["id"], scene.thing(p.project, "project")["id"]
        # "effective" also shows roles that come through a group or an implied role: granted is granted.
        query = {"user.id": user, "scope.project.id": project, "effective": "true"}
        found = scene.admin.get("identity", "role_assignments", **query)["role_assignments"]
        role = self._role_id(scene, p.role)
        return [
            {"id": role, "name": p.role, "user": user, "project": project} for one in found if one["role"]["id"] == role
        ][:1]

    def keep(self, scene: Scene, p: RoleParams, thing: Thing) -> Thing:
        return thing

    def remove(self, scene: Scene, thing: Thing) -> bool:
        require_empty(scene, thing["project"])  # else whoever has things there could not even look at them
        path = ("projects", thing["project"], "users", thing["user"], "roles", thing["id"])
        return scene.admin.delete("identity", *path)

    def look(self, scene: Scene, p: RoleParams) -> Command:
        user, project = scene.called(p.user), scene.called(p.project)
        return Command(("role", "assignment", "list", "--user", user, "--project", project, "--names"))

    def expected(self, p: RoleParams) -> str:
        return f"the user has role {p.role} on the project"


KINDS: list[Kind[Any]] = [Project(), User(), RoleAssignment()]
