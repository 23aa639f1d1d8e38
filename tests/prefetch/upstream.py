"""An internet of the test's own: bare git repositories, a small package index, an apt repository; it can be taken away."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import os
import shutil
import socket
import subprocess
import threading
import zipfile
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

GIT = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
}  # fmt: skip


def git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env={**os.environ, **GIT}, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


class WebDouble:
    """A directory on loopback in the place of the internet.

    `asked`: what it was asked for, with headers; `cut`: by path, the bytes after which it hangs up, once.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.cut = root, dict[str, int]()
        self.asked = list[tuple[str, dict[str, str]]]()
        self._links = list[socket.socket]()
        double = self

        class Handler(SimpleHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments, directory=str(root))

            def setup(self) -> None:
                super().setup()
                double._links.append(self.connection)

            def do_GET(self) -> None:
                double.asked.append((self.path, dict(self.headers)))
                path = Path(self.translate_path(self.path))
                if path.is_dir() or not path.is_file():
                    super().do_GET()
                    return
                body, tag = path.read_bytes(), f'"{path.stat().st_mtime_ns:x}"'
                if tag == self.headers.get("If-None-Match"):
                    self.send_response(304)
                    self.end_headers()
                    return
                first = 0
                if self.headers.get("If-Range") == tag:
                    first = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if first else 200)
                self.send_header("Content-Length", str(len(body) - first))
                self.send_header("ETag", tag)
                self.end_headers()
                cut = double.cut.pop(self.path, None)
                self.wfile.write(body[first:cut])
                if cut is not None:
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self._thread.start()

    def put(self, path: str, content: bytes) -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return target

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def take_away(self) -> None:
        """It answers no more, nor on connections that are kept alive."""
        if self._thread.is_alive():
            self.server.shutdown()
            self._thread.join()
            self.server.server_close()
            for link in self._links:
                with suppress(OSError):  # it has ended
                    link.shutdown(socket.SHUT_RDWR)


class Repositories:
    """Bare repositories below a directory, made through a work tree."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def commit(self, name: str, branch: str, files: dict[str, str], tag: str | None = None) -> str:
        """A commit on a branch; returns its id."""
        bare, tree = self.root / f"{name}.git", self.root / "trees" / name
        if not bare.exists():
            bare.parent.mkdir(parents=True, exist_ok=True)
            git(self.root, "init", "--quiet", "--bare", str(bare))
            git(self.root, "clone", "--quiet", str(bare), str(tree))
        if branch in git(tree, "branch", "--format=%(refname:short)").split():
            git(tree, "checkout", "--quiet", branch)
        else:
            git(tree, "checkout", "--quiet", "-b", branch)
        for path, text in files.items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        git(tree, "add", ".")
        git(tree, "commit", "--quiet", "-m", "x")
        if tag:
            git(tree, "tag", "-a", "-m", tag, tag)
        git(tree, "push", "--quiet", "--tags", str(bare), branch)
        return git(tree, "rev-parse", "HEAD")

    def take_away(self) -> None:
        shutil.rmtree(self.root)


def wheel(
    name: str, version: str, needs: tuple[str, ...] = (), extras: str = "", *, tag: str = "py3-none-any"
) -> tuple[str, bytes]:
    """A wheel that pip installs: one module that says its version."""
    module, info = name.replace("-", "_").lower(), f"{name.replace('-', '_')}-{version}.dist-info"
    requires = "".join(f"Requires-Dist: {need}\n" for need in needs) + "".join(
        f"Provides-Extra: {word}\n" for word in extras.split()
    )
    files = {
        f"{module}_of_test.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}\n"
        for path, text in files.items()
    )
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return f"{name.replace('-', '_')}-{version}-{tag}.whl", buffer.getvalue()


class IndexOnWeb:
    """A simple index below /simple/ of a web double; its files lie elsewhere, as with the real one."""

    def __init__(self, web: WebDouble) -> None:
        self.web = web
        self.url = f"{web.url}/simple"

    def offer(self, package: tuple[str, bytes], *, sha256: str | None = None, python: str = ">=3.6") -> str:
        """Put a file on offer; returns its path on the web."""
        file, content = package
        name = file.split("-")[0].replace("_", "-").lower()
        self.web.put(f"pool/{file}", content)
        page = self.web.root / "simple" / name / "index.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        digest = sha256 or hashlib.sha256(content).hexdigest()
        with page.open("a") as text:
            text.write(
                f'<a href="../../pool/{file}#sha256={digest}" data-requires-python="{html.escape(python)}">{file}</a>\n'
            )
        return f"/pool/{file}"
