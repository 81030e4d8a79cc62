"""What the Hub of the tests holds: repositories with commits, accounts, and what is to go wrong. Served by hub_server.py."""

import base64
import hashlib
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

GITATTRIBUTES = "".join(f"*.{end} filter=lfs diff=lfs merge=lfs -text\n" for end in ("safetensors", "parquet", "bin"))
LFS_FROM_BYTES = 10 * 2**20


class HubError(Exception):
    """An answer that is no success: status, the Hub's code and its text."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        self.status, self.message, self.headers = status, message, {"X-Error-Message": message, **headers}
        if code:
            self.headers["X-Error-Code"] = code


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    content: bytes
    lfs: bool = False

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def pointer(self) -> bytes:
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        return text.encode()

    @property
    def git_oid(self) -> str:
        data = self.pointer if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        """The file in a listing."""
        lfs = {"oid": self.sha256, "size": len(self.content), "pointerSize": len(self.pointer)}
        found = {"type": "file", "path": path, "oid": self.git_oid, "size": len(self.content)}
        return found | ({"lfs": lfs} if self.lfs else {})


@dataclass(frozen=True)
class Commit:
    """A commit: all files, what it says, and the one before."""

    tree: dict[str, Blob]
    title: str
    parent: str | None
    time: str

    @property
    def oid(self) -> str:
        names = [(path, blob.git_oid) for path, blob in sorted(self.tree.items())]
        return hashlib.sha1(repr((names, self.title, self.parent, self.time)).encode()).hexdigest()


@dataclass
class Repo:
    """A repository: commits, branches, tags, LFS objects."""

    kind: str
    name: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add_commit("main", {".gitattributes": Blob(GITATTRIBUTES.encode())}, "initial commit")

    def add_commit(self, branch: str, tree: dict[str, Blob], title: str) -> str:
        """Put a commit with these files on a branch; its name."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        commit = Commit(tree, title, self.branches.get(branch), now)
        self.commits[commit.oid] = commit
        self.branches[branch] = commit.oid
        return commit.oid

    def resolve(self, revision: str) -> str:
        """Name of the commit that a branch, a tag or a commit's name means."""
        named = self.branches | self.tags | {oid: oid for oid in self.commits}
        if revision not in named:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return named[revision]

    def history(self, revision: str = "main") -> list[Commit]:
        """Commits, the newest first."""
        found, oid = [], self.resolve(revision)
        while oid is not None:
            found.append(self.commits[oid])
            oid = found[-1].parent
        return found

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Content of every file but .gitattributes."""
        tree = self.commits[self.resolve(revision)].tree
        return {path: blob.content for path, blob in tree.items() if path != ".gitattributes"}


@dataclass(frozen=True)
class Account:
    """Who a token belongs to."""

    name: str
    namespaces: tuple[str, ...]
    role: str = "write"


@dataclass
class Fault:
    """Something to go wrong with the next requests that match: an answer, a broken connection, or an action before."""

    method: str
    pattern: str
    times: int
    status: int | None = None
    after_bytes: int | None = None
    lose_answer: bool = False
    action: Callable[[], object] | None = None


class Hub:
    """The state of the server, and what will go wrong."""

    def __init__(self, accounts: dict[str, Account] | None = None):
        self.accounts = accounts or {
            "hf_write": Account("ann", ("ann", "heart-lab")),
            "hf_read": Account("ann", ("ann", "heart-lab"), role="read"),
            "hf_other": Account("bob", ("bob",)),
        }
        self.repos: dict[tuple[str, str], Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str, int]] = []
        self.lock = threading.RLock()
        self.url = self.storage_url = ""

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[kind, name]

    def fail(self, method: str, pattern: str, *, status: int = 500, times: int = 1) -> None:
        """Answer matching requests with a status, without doing anything."""
        self.faults.append(Fault(method, pattern, times, status=status))

    def cut(self, method: str, pattern: str, *, after_bytes: int = 0, times: int = 1) -> None:
        """Break matching connections after so many bytes of the body, without doing anything."""
        self.faults.append(Fault(method, pattern, times, after_bytes=after_bytes))

    def lose_answer(self, method: str, pattern: str, *, times: int = 1) -> None:
        """Do what matching requests ask, then break the connection in place of an answer."""
        self.faults.append(Fault(method, pattern, times, lose_answer=True))

    def before(self, method: str, pattern: str, action: Callable[[], object]) -> None:
        """Call a function just before the next matching request is served."""
        self.faults.append(Fault(method, pattern, 1, action=action))

    def next_fault(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None

    def served(self, method: str, pattern: str) -> list[str]:
        """Paths of successful requests."""
        return [p for m, p, status in self.requests if m == method and re.search(pattern, p) and status < 400]

    def account(self, token: str | None) -> Account | None:
        if token is None:
            return None
        if token not in self.accounts:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.accounts[token]

    def find(self, kind: str, name: str, account: Account | None, *, write: bool = False) -> Repo:
        """A repository, if the account may know of it, and may write to it if that is asked."""
        repo = self.repos.get((kind, name))
        own = account is not None and name.split("/")[0] in account.namespaces
        if repo is None or (repo.private and not own):
            raise HubError(401 if account is None else 404, "Repository not found", "RepoNotFound")
        if write and account is None:
            raise HubError(401, "Invalid username or password.")
        if write and (not own or account.role != "write"):
            raise HubError(403, f"You don't have the required permissions to write to {name}")
        return repo


def apply_operation(repo: Repo, tree: dict[str, Blob], key: str, value: dict[str, Any]) -> None:
    """One line of a commit."""
    path = value["path"]
    if key == "file":
        content = base64.b64decode(value["content"])
        if needs_lfs(path, len(content), content[:512]) and content:
            raise HubError(400, f"{path} must go through LFS")
        tree[path] = Blob(content)
    elif key == "lfsFile":
        if value["oid"] not in repo.objects:
            raise HubError(400, f"{path}: LFS object {value['oid']} was not uploaded")
        tree[path] = Blob(repo.objects[value["oid"]], lfs=True)
    elif key == "deletedFile":
        if tree.pop(path, None) is None:
            raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
    elif key == "deletedFolder":
        for inside in [p for p in tree if p.startswith(path.rstrip("/") + "/")]:
            del tree[inside]
    else:
        raise HubError(400, f"unknown operation {key}")


def needs_lfs(path: str, size: int, sample: bytes) -> bool:
    """The Hub's rule: what .gitattributes names, what is large, what is binary."""
    return size > LFS_FROM_BYTES or f"*.{path.rpartition('.')[2]} " in GITATTRIBUTES or b"\0" in sample


def listing(tree: dict[str, Blob], folder: str | None) -> list[dict[str, Any]]:
    """Files and folders below a folder, or of all."""
    inside = {path: blob for path, blob in sorted(tree.items()) if not folder or path.startswith(f"{folder}/")}
    folders = {path[:i] for path in inside for i, sign in enumerate(path) if sign == "/"} - {folder}
    folders = {path for path in folders if not folder or path.startswith(f"{folder}/")}
    found = [{"type": "directory", "path": p, "oid": hashlib.sha1(p.encode()).hexdigest(), "size": 0} for p in folders]
    return sorted(found, key=lambda entry: entry["path"]) + [blob.entry(path) for path, blob in inside.items()]


def metadata(card: str) -> dict[str, Any]:
    """The block between the dashes."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|\Z)", card, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


def card_errors(card: str) -> list[str]:
    """What the Hub finds wrong with a card; much less than the real one looks at."""
    try:
        data = metadata(card)
    except yaml.YAMLError as error:
        return [f"YAML: {error}"]
    if not isinstance(data, dict):
        return ["metadata must be a mapping"]
    licence = data.get("license")
    wrong = licence is not None and not (
        isinstance(licence, str | list) and re.fullmatch(r"[a-z0-9.\-]+", str(licence))
    )
    return ['"license" must be one of the known licenses, in lower case'] if wrong else []
