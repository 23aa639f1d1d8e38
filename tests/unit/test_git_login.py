"""No account in an address of git's reaches its arguments; git itself still logs in with it."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

from stacklab.download import without_login


def test_git_logs_in_with_the_account_and_it_is_in_no_argument() -> None:
    seen: list[str] = []

    class Asks(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(404 if seen[-1] else 401)
            self.send_header("WWW-Authenticate", "Basic realm=x")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Asks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://me:hu%40sh@127.0.0.1:{server.server_port}/x.git"
        command, login = without_login("git", "ls-remote", "--", url, "main")
        assert "hu" not in " ".join(command)
        subprocess.run(command, env=os.environ | login, capture_output=True, timeout=60, check=False)
        server.shutdown()
    assert f"Basic {base64.b64encode(b'me:hu@sh').decode()}" in seen


def test_other_commands_stay_as_they_are() -> None:
    for command in (("git", "status"), ("git", "clone", "https://open.example/x"), ("git", "clone", "ssh://git@h/x")):
        assert without_login(*command) == (list(command), {})
