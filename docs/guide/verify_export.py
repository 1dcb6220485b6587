"""Checks an export without Tenantry: zstd -dc EXPORT | python3 verify_export.py

Needs nothing but Python, and the memory of one page of the manifest. Exit code 0: whole, and as it was written.
"""

import hashlib
import json
import sys
import tarfile

passed, pages, files, sums, manifest = [], 0, 0, hashlib.sha256(), None


def check(what, why):
    if not what:
        sys.exit(f"not whole: {why}")


with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for entry in archive:
        archive.members = []  # Python would remember every one.
        content = archive.extractfile(entry)
        check(manifest is None, "it goes on behind its manifest")
        if entry.name == "manifest.json":
            manifest = json.load(content)
        elif entry.name == f"manifest.{pages + 1:06}.ndjson":
            # A page lists the files since the last one, each on a line.
            page = content.read()
            for found, said in zip(passed, page.splitlines()):
                check(found == json.loads(said), f"{found['path']} is not as its manifest says")
            check(len(passed) == len(page.splitlines()), f"{entry.name} lists other files")
            sums.update(page)
            passed, pages = [], pages + 1
        else:
            digest = hashlib.sha256()
            while chunk := content.read(1 << 20):
                digest.update(chunk)
            passed.append({"path": entry.name, "size": entry.size, "sha256": digest.hexdigest()})
            files += 1

check(manifest is not None, "it has no manifest")
check(manifest["version"] == 2, f"this script reads the form 2, and not {manifest['version']}")
check(not passed, "files behind the last page")
said = {"count": pages, "files": files, "sha256": sums.hexdigest()}
check(manifest["pages"] == said, "its pages are not as its manifest says")
print("whole:", manifest["tenant"], "with", files, "files")
