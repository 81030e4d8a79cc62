r"""A small Hub for tests: the HTTP API that huggingface_hub speaks, over repositories in memory, with faults on demand.

    with running_hub() as hub:
        api = HfApi(endpoint=hub.url, token="hf_write")
        hub.cut("PUT", "/storage/", after_bytes=1000)  # the next upload breaks off after 1,000 bytes
        hub.fail("POST", "/commit/", status=503, times=2)
        ...
        assert hub.repo("ann/ecg").files("main")["config.json"] == b"{}"

Repositories start with a commit that holds .gitattributes, as on the Hub. Large and binary files go through LFS to a storage
under another host name, which refuses requests that carry a token. Files are never offered through Xet, so clients need
``HF_HUB_DISABLE_XET=1``. From a shell: ``python tests/hub_server.py`` prints what to export, and serves until it is stopped.
"""

import base64
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_state import Account, Hub, HubError, Repo, apply_operation, card_errors, listing, metadata, needs_lfs

TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}
ROUTES: list[tuple[str, re.Pattern[str], str]] = []


def route(methods: str, pattern: str):
    """Serve paths that match: the groups of the pattern become arguments."""

    def register(function):
        for method in methods.split():
            ROUTES.append((method, re.compile(pattern + r"\Z"), function.__name__))
        return function

    return register


API = r"/api/(?P<kinds>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
FILES = r"/(?:(?P<kinds>datasets|spaces)/)?(?P<name>[^/]+/[^/]+)"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    account: Account | None = None

    def log_message(self, *args: object) -> None:
        pass

    def serve(self) -> None:
        path = urlsplit(self.path).path
        fault = self.hub.next_fault(self.command, path)
        if fault and fault.after_bytes is not None:
            return self.break_off(fault.after_bytes)
        self.body = self.read_body()
        if fault and fault.action:
            fault.action()
        headers: dict[str, str] = {}
        try:
            if fault and fault.status:
                raise HubError(fault.status, "something went wrong on purpose")
            status, headers, content = self.dispatch(path)
        except HubError as error:
            status, headers, content = error.status, error.headers, json.dumps({"error": error.message}).encode()
        self.hub.requests.append((self.command, path, status))
        if fault and fault.lose_answer:
            return self.break_off(0)
        self.send_response(status)
        for name, value in (
            {"Content-Type": "application/json", "Content-Length": str(len(content))} | headers
        ).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def break_off(self, after_bytes: int) -> None:
        """Read a little, then reset the connection."""
        self.rfile.read(after_bytes)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def dispatch(self, path: str) -> tuple[int, dict[str, str], bytes]:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip() or None
        self.storage = path.startswith("/storage/")
        if self.storage and token:
            raise HubError(400, "a token was sent to the storage host")
        for method, pattern, function in ROUTES:
            if method == self.command and (match := pattern.match(path)):
                groups = {key: value and unquote(value) for key, value in match.groupdict().items()}
                if "kinds" in groups:
                    groups["kind"] = TYPES[groups.pop("kinds") or "models"]
                with self.hub.lock:
                    self.account = self.hub.account(token)
                    answer = getattr(self, function)(**groups)
                return answer if isinstance(answer, tuple) else (200, {}, json.dumps(answer).encode())
        raise HubError(404, f"no such route: {self.command} {path}")

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def own(self, kind: str, name: str) -> Repo:
        return self.hub.find(kind, name, self.account, write=True)

    def seen(self, kind: str, name: str) -> Repo:
        return self.hub.find(kind, name, self.account)

    def link(self, kind: str, name: str) -> str:
        return self.hub.url + ("/" if kind == "model" else f"/{kind}s/") + name

    @route("GET", "/api/whoami-v2")
    def whoami(self):
        if self.account is None:
            raise HubError(401, "Invalid username or password.")
        orgs = [{"name": name} for name in self.account.namespaces if name != self.account.name]
        return {"type": "user", "name": self.account.name, "orgs": orgs}

    @route("POST", "/api/repos/create")
    def create(self):
        wanted = self.json()
        if self.account is None:
            raise HubError(401, "Invalid username or password.")
        owner = wanted.get("organization") or self.account.name
        if owner not in self.account.namespaces or self.account.role != "write":
            raise HubError(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        kind, name = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
        if (kind, name) in self.hub.repos:
            text = json.dumps({"error": "You already created this repo", "url": self.link(kind, name)}).encode()
            return 409, {"X-Error-Message": "You already created this repo"}, text
        self.hub.repos[kind, name] = Repo(
            kind, name, wanted.get("visibility") == "private" or bool(wanted.get("private"))
        )
        return {"url": self.link(kind, name), "name": name}

    @route("POST", "/api/validate-yaml")
    def validate_yaml(self):
        errors = card_errors(self.json()["content"])
        text = json.dumps({"errors": [{"message": e} for e in errors], "warnings": []}).encode()
        return (400 if errors else 200), {}, text

    @route("POST", API + "/preupload/(?P<revision>[^/]+)")
    def preupload(self, kind, name, revision):
        repo = self.own(kind, name)
        tree = repo.commits[repo.resolve(revision)].tree
        answers = []
        for given in self.json()["files"]:
            blob = tree.get(given["path"])
            answer = {"path": given["path"], "shouldIgnore": False, "uploadMode": "regular"}
            if needs_lfs(given["path"], given["size"], base64.b64decode(given["sample"])):
                answer["uploadMode"] = "lfs"
            answers.append(answer | ({"oid": blob.sha256 if blob.lfs else blob.git_oid} if blob else {}))
        return {"files": answers}

    @route("POST", FILES + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, kind, name):
        repo, objects = self.own(kind, name), []
        for wanted in self.json()["objects"]:
            upload = f"{self.hub.storage_url}/storage/{kind}s/{name}/{wanted['oid']}"
            verify = f"{self.link(kind, name)}.git/info/lfs/verify"
            actions = {"upload": {"href": upload}, "verify": {"href": verify}}
            objects.append(wanted | ({} if wanted["oid"] in repo.objects else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    @route("PUT", r"/storage/(?P<kinds>\w+)/(?P<name>[^/]+/[^/]+)/(?P<oid>\w+)")
    def lfs_put(self, kind, name, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "the content is not what was announced")
        self.hub.repos[kind, name].objects[oid] = self.body
        return {}

    @route("POST", FILES + r"\.git/info/lfs/verify")
    def lfs_verify(self, kind, name):
        wanted = self.json()
        if len(self.own(kind, name).objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubError(404, "the object is not there")
        return {}

    @route("POST", API + "/commit/(?P<revision>[^/]+)")
    def commit(self, kind, name, revision):
        repo = self.own(kind, name)
        head = repo.resolve(revision)
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if revision not in repo.branches:
            raise HubError(400, f"{revision} is no branch")
        if header.get("parentCommit") not in (None, head):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        tree = dict(repo.commits[head].tree)
        for line in lines[1:]:
            apply_operation(repo, tree, line["key"], line["value"])
        oid = repo.add_commit(revision, tree, header["summary"])
        return {"success": True, "commitOid": oid, "commitUrl": f"{self.link(kind, name)}/commit/{oid}"}

    @route("POST", API + "/branch/(?P<branch>[^/]+)")
    def create_branch(self, kind, name, branch):
        repo = self.own(kind, name)
        if branch in repo.branches:
            raise HubError(409, "Reference already exists")
        repo.branches[branch] = repo.resolve(self.json().get("startingPoint") or "main")
        return {}

    @route("POST", API + "/tag/(?P<revision>[^/]+)")
    def create_tag(self, kind, name, revision):
        repo, tag = self.own(kind, name), self.json()["tag"]
        if tag in repo.tags:
            raise HubError(409, "Tag reference exists already")
        repo.tags[tag] = repo.resolve(revision)
        return {}

    @route("GET", API + "/refs")
    def refs(self, kind, name):
        repo = self.seen(kind, name)

        def listed(names, folder):
            return [{"name": n, "ref": f"refs/{folder}/{n}", "targetCommit": oid} for n, oid in names.items()]

        return {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}

    @route("GET", API + "/commits/(?P<revision>[^/]+)")
    def commits(self, kind, name, revision):
        found = self.seen(kind, name).history(revision)
        return [{"id": c.oid, "title": c.title, "message": "", "date": c.time, "authors": []} for c in found]

    @route("GET", API + "(?:/revision/(?P<revision>[^/]+))?")
    def info(self, kind, name, revision):
        repo = self.seen(kind, name)
        oid = repo.resolve(revision or "main")
        tree, dates = (
            repo.commits[oid].tree,
            {"lastModified": repo.commits[oid].time, "createdAt": repo.history()[-1].time},
        )
        files = [{"rfilename": path} for path in sorted(tree)]
        card = {"cardData": metadata(tree["README.md"].content.decode()) if "README.md" in tree else {}}
        about = {"private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        return (
            {"_id": name, "id": name, "author": name.split("/")[0], "sha": oid, "siblings": files}
            | about
            | dates
            | card
        )

    @route("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?")
    def tree(self, kind, name, revision, folder):
        repo = self.seen(kind, name)
        found = listing(repo.commits[repo.resolve(revision)].tree, folder)
        if not found and folder:
            raise HubError(404, f"{folder} does not exist", "EntryNotFound")
        depth = 0 if not folder else folder.count("/") + 1
        recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() in ("true", "1")
        return [entry for entry in found if recursive or entry["path"].count("/") == depth]

    @route("POST", API + "/paths-info/(?P<revision>[^/]+)")
    def paths_info(self, kind, name, revision):
        repo = self.seen(kind, name)
        form = self.json() if self.body.startswith(b"{") else parse_qs(self.body.decode())
        found = listing(repo.commits[repo.resolve(revision)].tree, None)
        return [entry for entry in found if entry["path"] in form.get("paths", [])]

    @route("GET HEAD", FILES + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
    def resolve(self, kind, name, revision, path):
        repo = self.seen(kind, name)
        oid = repo.resolve(revision)
        blob = repo.commits[oid].tree.get(path)
        if blob is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": oid})
        headers = {"X-Repo-Commit": oid, "ETag": f'"{blob.git_oid}"', "Content-Type": "application/octet-stream"}
        if not blob.lfs:
            return self.partial(blob.content, headers)
        headers |= {"X-Linked-ETag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
        location = f"{self.hub.storage_url}/storage/{kind}s/{name}/{blob.sha256}"
        return 302, headers | {"Location": location}, b""

    @route("GET HEAD", r"/storage/(?P<kinds>\w+)/(?P<name>[^/]+/[^/]+)/(?P<oid>\w+)")
    def lfs_get(self, kind, name, oid):
        content = self.hub.repos[kind, name].objects.get(oid)
        if content is None:
            raise HubError(404, "no such object")
        return self.partial(content, {"ETag": f'"{oid}"', "Content-Type": "application/octet-stream"})

    def partial(self, content: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """All of a file, or the range that was asked for."""
        headers = headers | {"Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not wanted:
            return 200, headers | {"Content-Length": str(len(content))}, content
        first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
        if first > last:
            raise HubError(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{len(content)}"})
        part = content[first : last + 1]
        headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}", "Content-Length": str(len(part))}
        return 206, headers, part


@contextmanager
def running_hub(accounts: dict[str, Account] | None = None) -> Iterator[Hub]:
    """Serve on a free port of this machine until the block ends."""
    hub = Hub(accounts)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    server.daemon_threads = True
    server.handle_error = lambda *args: None  # connections that were broken on purpose
    hub.url, hub.storage_url = f"http://127.0.0.1:{server.server_port}", f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def go_online(monkeypatch, hub: Hub | None = None, token: str = "hf_write") -> None:
    """Let huggingface_hub in this process send requests, without Xet and without waiting between its tries.

    With a Hub, to that one by default, with that token.
    """
    if hub is not None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def run_clean(code: str, hub: Hub, folder: Path, token: str | None = "hf_write") -> str:
    """What code prints for a user of the Hub: new process, new cache in a folder, none of this project's packages."""
    blocked = "import sys\nsys.modules['hf_evl_ecg'] = sys.modules['hf_mic'] = None\n"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"OMP_NUM_THREADS": "1"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, "-P", "-c", blocked + code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=environment, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


if __name__ == "__main__":
    with running_hub({"hf_local": Account("your-name", ("your-name",))}) as running:
        print(f"export HF_ENDPOINT={running.url} HF_TOKEN=hf_local HF_HUB_DISABLE_XET=1", flush=True)
        threading.Event().wait()
