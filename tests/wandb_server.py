"""A server that answers W&B's own package, by HTTP on this machine, when it asks for one artifact and its files."""

import base64
import contextlib
import hashlib
import http.server
import json
import threading

WRITTEN_FOR = "0.31."  # what the package asks is its own affair, and changes with its versions


@contextlib.contextmanager
def serving(files, wrong=()):
    """The address of a server that has "team/p/lift:v1"; {name: content}, `wrong`: names sent with other bytes."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.wrong = files, wrong
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def identifier(kind):
    return base64.b64encode(f"{kind}:1".encode()).decode()


def manifest(files):
    digests = {name: base64.b64encode(hashlib.md5(content).digest()).decode() for name, content in files.items()}
    contents = {
        name: {"digest": digests[name], "size": len(content), "birthArtifactID": identifier("Artifact")}
        for name, content in files.items()
    }
    policy = {"storagePolicy": "wandb-storage-policy-v1", "storagePolicyConfig": {"storageLayout": "V2"}}
    return {"version": 1, **policy, "contents": contents}


def membership(files):
    project = {"id": identifier("Project"), "internalId": identifier("P"), "name": "p", "entity": {"name": "team"}}
    collection = {"__typename": "ArtifactSequence", "id": identifier("C"), "name": "lift", "project": project}
    shared = {"versionIndex": 1, "createdAt": "2026-01-01T00:00:00", "aliases": []}
    empty = dict.fromkeys(("description", "historyStep", "updatedAt", "commitHash"))
    artifact = {
        **shared,
        **empty,
        "__typename": "Artifact",
        "id": identifier("Artifact"),
        "artifactSequence": collection,
        "artifactType": {"name": "model"},
        "metadata": "{}",
        "ttlDurationSeconds": -1,
        "ttlIsInherited": False,
        "tags": [],
        "state": "COMMITTED",
        "size": sum(map(len, files.values())),
        "fileCount": len(files),
        "digest": hashlib.md5(json.dumps(manifest(files)).encode()).hexdigest(),
    }
    kind = {"__typename": "ArtifactCollectionMembership", "id": identifier("M")}
    return {**shared, **kind, "artifactCollection": collection, "artifact": artifact}


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self):
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = {}
        if self.path == "/graphql":
            asked = json.loads(content)
            found = self.answer(asked["query"], asked.get("variables") or {})
        self.reply(json.dumps({"data": found}).encode())

    def answer(self, query, variables):
        files, here = self.server.files, f"http://{self.headers['Host']}"
        if "viewer" in query:
            teams = {"edges": [{"node": {"name": "team"}}]}
            user = {"id": identifier("User"), "entity": "team", "username": "u", "email": "u@example.com"}
            return {"viewer": {**user, "flags": "{}", "teams": teams}}
        if "ArtifactMembershipByName" in query:
            known = (variables["entity"], variables["project"]) == ("team", "p") and variables["name"] in (
                "lift:v1",
                "lift:latest",
            )
            return {"project": {"artifactCollectionMembership": membership(files) if known else None}}
        if "FileUrls" in query:
            nodes = [{"node": {"__typename": "File", "name": name, "directUrl": f"{here}/{name}"}} for name in files]
            page = {"pageInfo": {"endCursor": None, "hasNextPage": False}, "edges": nodes}
            collection = {"__typename": "ArtifactSequence", "artifactMembership": {"files": page}}
            return {"project": {"artifactCollection": collection}}
        if "Manifest" in query:
            return {"artifact": {"currentManifest": {"file": {"directUrl": f"{here}/manifest"}}}}
        return {}

    def do_GET(self):
        name = self.path.removeprefix("/")
        content = self.server.files.get(name, b"")
        if name in self.server.wrong:
            content = bytes(len(content))
        self.reply(json.dumps(manifest(self.server.files)).encode() if name == "manifest" else content)

    def reply(self, content):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass
