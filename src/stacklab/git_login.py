"""Accounts in the addresses of git repositories: git gets them from its environment, for everybody can read its arguments."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from stacklab.download import without_password

# git asks it as `sh -c 'f() …; f get'` (gitcredentials(7)): the variables' names are in the arguments, their values are not.
_HELPER = '!f() { echo "username=$LAB_GIT_ACCOUNT"; echo "password=$LAB_GIT_PASSWORD"; }; f'


def without_login(*command: str) -> tuple[list[str], dict[str, str]]:
    """A git command (`git`, arguments …) with its http address without the account, and the variables that hold that."""
    git, *arguments = command
    for at, argument in enumerate(arguments):
        if not argument.startswith(("http://", "https://")):
            continue
        parts = urlsplit(argument)
        if parts.username is not None:
            arguments[at] = without_password(argument)
            login = {"LAB_GIT_ACCOUNT": unquote(parts.username), "LAB_GIT_PASSWORD": unquote(parts.password or "")}
            return [git, "-c", f"credential.helper={_HELPER}", *arguments], login
    return list(command), {}
