"""A Hub on the loopback interface: what huggingface_hub, transformers and datasets ask of the real one, kept in memory.

Repos of models and data sets with commits, branches, tags and pull requests; files in Git or, where large ones would be, through
the LFS protocol; private repos and tokens. It has no Xet: clients need HF_HUB_DISABLE_XET=1. A test reads and changes its state
directly, counts its `requests`, and makes it fail through `faults`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

NOW = "2026-01-01T00:00:00.000Z"
LARGE = (".safetensors", ".parquet")  # go through LFS, whatever their size
KINDS = {"models": "model", "datasets": "dataset"}


class Refused(Exception):
    """An answer of the Hub that says no."""

    def __init__(self, status: int, message: str, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class File:
    """A file at a commit."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def git_id(self) -> str:
        """Of the file as Git keeps it; of a large one Git keeps a pointer."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        content = pointer.encode() if self.large else self.content
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def describe(self, path: str) -> dict[str, Any]:
        lfs = {"lfs": {"oid": self.sha256, "size": len(self.content), "pointerSize": 134}} if self.large else {}
        return {"type": "file", "path": path, "oid": self.git_id, "size": len(self.content), **lfs}


@dataclass
class Repo:
    """A repo: commits are whole trees, path -> file; refs point to them."""

    name: str
    owner: str
    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.branches["main"] = self.commit({}, "initial commit")

    def commit(self, files: dict[str, File], title: str) -> str:
        said = json.dumps([self.name, len(self.commits), title, {path: file.git_id for path, file in files.items()}])
        commit = hashlib.sha1(said.encode()).hexdigest()
        self.commits[commit], self.titles[commit] = files, title
        return commit

    def put(self, files: dict[str, bytes], branch: str = "main") -> str:
        """A commit that a test makes: these files instead of those of their names."""
        added = {path: File(content, path.endswith(LARGE)) for path, content in files.items()}
        self.branches[branch] = self.commit({**self.files(branch), **added}, "put")
        return self.branches[branch]

    def resolve(self, revision: str) -> str:
        pull = re.fullmatch(r"refs/pr/(\d+)", revision)
        if pull and int(pull[1]) <= len(self.pulls):
            return self.pulls[int(pull[1]) - 1]
        for known in (self.branches, self.tags):
            if revision in known:
                return known[revision]
        if revision in self.commits:
            return revision
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def files(self, revision: str = "main") -> dict[str, File]:
        return self.commits[self.resolve(revision)]

    def describe(self, revision: str) -> dict[str, Any]:
        siblings = [{"rfilename": path} for path in sorted(self.files(revision))]
        known = {"id": self.name, "_id": self.name, "author": self.owner, "sha": self.resolve(revision), "private": self.private}
        more = {"lastModified": NOW, "createdAt": NOW, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        return {**known, **more, "siblings": siblings, "cardData": None}


@dataclass
class Fault:
    """What goes wrong with requests that match: a status, or "drop": the connection is closed in the middle of the answer.

    Attributes:
        match: pattern of "METHOD /path?query".
        status: of the answer, or "drop".
        message: what the Hub says.
        times: how often; None: always.
    """

    match: str
    status: int | str
    message: str = "a fault"
    times: int | None = None


class HubServer:
    """A context manager; inside it the Hub answers at `url`.

    Attributes:
        users: token -> user.
        repos: (kind, "owner/name") -> Repo.
        requests: "METHOD /path?query" of every request, in order.
        faults: what goes wrong, the first that matches.
        extra: further entries in the list of files of every repo, whose content is not there.
    """

    def __init__(self, users: dict[str, str]):
        self.users, self.repos, self.objects = users, {}, {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.extra: list[str] = []
        self.lock = threading.RLock()
        handler = type("BoundHandler", (Handler,), {"hub": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error) -> None:
        self.http.shutdown()
        self.http.server_close()

    def repo(self, name: str, kind: str = "model", private: bool = False) -> Repo:
        """The repo of that name, made where there is none."""
        return self.repos.setdefault((kind, name), Repo(name, name.split("/")[0], private))

    def asked(self, pattern: str) -> list[str]:
        """The requests that match a pattern."""
        return [request for request in self.requests if re.search(pattern, request)]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *parts) -> None:
        pass

    def handle_request(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        body = self._body()
        with self.hub.lock:
            asked = f"{self.command} {self.path}"
            self.hub.requests.append(asked)
            fault = next((f for f in self.hub.faults if re.search(f.match, asked) and f.times != 0), None)
            if fault is not None and fault.times is not None:
                fault.times -= 1
        self.drop = fault is not None and fault.status == "drop"
        try:
            if fault is not None and not self.drop:
                raise Refused(fault.status, fault.message.replace("{authorization}", self.headers.get("Authorization", "")))
            with self.hub.lock:
                for method, pattern, action in ROUTES:
                    found = re.fullmatch(pattern, url.path)
                    if found and self.command in method.split():
                        return action(self, body, **{k: v and unquote(v) for k, v in found.groupdict().items()})
            raise Refused(404, f"Not found: {self.command} {url.path}")
        except Refused as error:
            code = {"X-Error-Code": error.code} if error.code else {}
            self.answer({"error": error.message}, error.status, {"X-Error-Message": error.message, **code})
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = handle_request

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """JSON, or bytes as they are."""
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        if self.drop and self.command == "HEAD":  # there is no body to cut
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream" if isinstance(value, bytes) else "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.end_headers()
        if self.drop:
            content, self.close_connection = content[: len(content) // 2], True
        if self.command != "HEAD":
            self.wfile.write(content)

    # Who asks, and for what ----------------------------------------------------------------------------------------

    def user(self, needed: bool = False) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, "Invalid credentials in Authorization header")
        if needed and not token:
            raise Refused(401, "Invalid username or password.")
        return self.hub.users.get(token)

    def find(self, kind: str | None, name: str, write: bool = False) -> Repo:
        user = self.user(write)
        repo = self.hub.repos.get((KINDS[kind or "models"], name))
        if repo is None or (repo.private and repo.owner != user):
            raise Refused(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and repo.owner != user:
            raise Refused(403, "you must use a write token with access to this repo")
        return repo

    # What it does --------------------------------------------------------------------------------------------------

    def validate(self, body: bytes) -> None:
        card = json.loads(body)["content"]
        if not card.startswith("---\n"):
            raise Refused(400, "empty or missing yaml metadata in repo card")
        self.answer({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        user, asked = self.user(True), json.loads(body)
        owner = asked.get("organization") or user
        kind, name = asked.get("type") or "model", f"{owner}/{asked['name']}"
        if owner != user:
            raise Refused(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        url = f"{self.hub.url}/{'datasets/' * (kind == 'dataset')}{name}"
        if (kind, name) in self.hub.repos:
            return self.answer({"error": "You already created this repo", "url": url}, 409)
        self.hub.repo(name, kind, bool(asked.get("private")) or asked.get("visibility") == "private")
        self.answer({"url": url, "name": name})

    def info(self, body: bytes, kind: str, name: str, revision: str | None = None) -> None:
        self.answer(self.find(kind, name).describe(revision or "main"))

    def tree(self, body: bytes, kind: str, name: str, revision: str, folder: str | None = None) -> None:
        below = f"{folder.strip('/')}/" if folder else ""
        files = {path: file for path, file in self.find(kind, name).files(revision).items() if path.startswith(below)}
        deep = self.query.get("recursive", "").lower() in ("true", "1")
        if below and not files:
            raise Refused(404, f"{folder} does not exist", "EntryNotFound")
        found = [file.describe(path) for path, file in files.items() if deep or "/" not in path[len(below) :]]
        inside = {below + path[len(below) :].split("/")[0] for path in files if "/" in path[len(below) :]}
        if deep:
            inside = {path[:i] for path in files for i, c in enumerate(path) if c == "/" and i >= len(below)}
        found += [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(inside)]
        found += [{"type": "file", "path": path, "oid": "1" * 40, "size": 5} for path in self.hub.extra]
        self.answer(found)

    def paths_info(self, body: bytes, kind: str, name: str, revision: str) -> None:
        files = self.find(kind, name).files(revision)
        is_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if is_json else parse_qs(body.decode())["paths"]
        folders = [path for path in paths if any(known.startswith(path.rstrip("/") + "/") for known in files)]
        found = [files[path].describe(path) for path in paths if path in files]
        self.answer(found + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders])

    def refs(self, body: bytes, kind: str, name: str) -> None:
        repo = self.find(kind, name)
        lists = (("branches", "refs/heads/", repo.branches), ("tags", "refs/tags/", repo.tags))
        found = {what: [{"name": k, "ref": to + k, "targetCommit": v} for k, v in refs.items()] for what, to, refs in lists}
        self.answer({**found, "converts": []})

    def branch(self, body: bytes, kind: str, name: str, ref: str) -> None:
        repo = self.find(kind, name, write=True)
        if ref in repo.branches:
            raise Refused(409, f"Reference already exists: {ref}")
        repo.branches[ref] = repo.resolve(json.loads(body or b"{}").get("startingPoint") or "main")
        self.answer({})

    def tag(self, body: bytes, kind: str, name: str, ref: str) -> None:
        repo = self.find(kind, name, write=True)
        repo.tags[json.loads(body)["tag"]] = repo.resolve(ref)
        self.answer({})

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        known = self.find(kind, name, write="create_pr" not in self.query).files(revision)
        modes = []
        for file in json.loads(body)["files"]:
            path, large = file["path"], file["path"].endswith(LARGE)
            old = known.get(path)
            oid = old and (old.sha256 if large else old.git_id)
            modes.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid})
        self.answer({"files": modes})

    def batch(self, body: bytes, kind: str | None, name: str) -> None:
        self.user(True)
        self.find(kind, name)
        wanted = [{"oid": o["oid"], "size": o["size"]} for o in json.loads(body)["objects"]]
        for one in wanted:
            if one["oid"] not in self.hub.objects:
                one["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}?signature=secret"}}
        self.answer({"transfer": "basic", "objects": wanted})

    def upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "the content is not that of its digest")
        self.hub.objects[oid] = body
        self.answer({})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        pull = "create_pr" in self.query
        repo = self.find(kind, name, write=not pull)
        files, title = dict(repo.files(revision)), ""
        for line in body.splitlines():
            what, value = (json.loads(line)[key] for key in ("key", "value"))
            if what == "header":
                title = value["summary"]
            elif what == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif what == "lfsFile":
                files[value["path"]] = File(self.hub.objects[value["oid"]], True)
            elif what == "deletedFile":
                del files[value["path"]]
        commit = repo.commit(files, title)
        url = f"{self.hub.url}/{'datasets/' * (kind == 'datasets')}{name}"
        said = {"success": True, "commitOid": commit, "commitUrl": f"{url}/commit/{commit}"}
        if pull:
            self.user(True)
            repo.pulls.append(commit)
            said["pullRequestUrl"] = f"{url}/discussions/{len(repo.pulls)}"
        elif given := re.fullmatch(r"refs/pr/(\d+)", revision):
            repo.pulls[int(given[1]) - 1] = commit
        else:
            repo.branches[revision] = commit
        self.answer(said)

    def resolve(self, body: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        repo = self.find(kind, name)
        headers = {"X-Repo-Commit": repo.resolve(revision)}
        file = repo.files(revision).get(path)
        if file is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.answer({"error": "Entry not found"}, 404, headers)
        headers |= {"ETag": f'"{file.sha256 if file.large else file.git_id}"', "Accept-Ranges": "bytes"}
        if file.large:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not part:
            return self.answer(file.content, headers=headers)
        start, size = int(part[1]), len(file.content)
        stop = min(int(part[2]) + 1 if part[2] else size, size)
        self.answer(file.content[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})


NAME = r"(?P<name>[^/]+/[^/]+)"
API = rf"/api/(?P<kind>models|datasets)/{NAME}"
FILES = rf"/(?:(?P<kind>datasets)/)?{NAME}"
REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("POST", "/api/validate-yaml", Handler.validate),
    ("POST", "/api/repos/create", Handler.create),
    ("GET", API, Handler.info),
    ("GET", rf"{API}/revision/{REVISION}", Handler.info),
    ("GET", rf"{API}/tree/{REVISION}(?:/(?P<folder>.*))?", Handler.tree),
    ("POST", rf"{API}/paths-info/{REVISION}", Handler.paths_info),
    ("GET", rf"{API}/refs", Handler.refs),
    ("POST", rf"{API}/branch/(?P<ref>.+)", Handler.branch),
    ("POST", rf"{API}/tag/(?P<ref>.+)", Handler.tag),
    ("POST", rf"{API}/preupload/{REVISION}", Handler.preupload),
    ("POST", rf"{API}/commit/{REVISION}", Handler.commit),
    ("POST", rf"{FILES}\.git/info/lfs/objects/batch", Handler.batch),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.upload),
    ("GET HEAD", rf"{FILES}/resolve/{REVISION}/(?P<path>.+)", Handler.resolve),
]
"""(methods, path, what it does), the first that matches."""
