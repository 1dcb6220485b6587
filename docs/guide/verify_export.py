"""Checks an export without Tenantry: zstd -dc EXPORT | python3 verify_export.py

Needs only Python, and memory for one page of the manifest. Exit code 0: the export is complete and unchanged.
"""

import hashlib
import json
import sys
import tarfile

passed, pages, files, sums, manifest = [], 0, 0, hashlib.sha256(), None


def check(what, why):
    if not what:
        sys.exit(f"not valid: {why}")


with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
    for entry in archive:
        archive.members = []  # Otherwise Python keeps every entry in memory.
        content = archive.extractfile(entry)
        check(manifest is None, "there are files after the manifest")
        if entry.name == "manifest.json":
            manifest = json.load(content)
        elif entry.name == f"manifest.{pages + 1:06}.ndjson":
            # A page lists the files since the previous page, one per line.
            page = content.read()
            for found, said in zip(passed, page.splitlines()):
                check(found == json.loads(said), f"{found['path']} differs from its manifest")
            check(len(passed) == len(page.splitlines()), f"{entry.name} lists a different number of files")
            sums.update(page)
            passed, pages = [], pages + 1
        else:
            digest = hashlib.sha256()
            while chunk := content.read(1 << 20):
                digest.update(chunk)
            passed.append({"path": entry.name, "size": entry.size, "sha256": digest.hexdigest()})
            files += 1

check(manifest is not None, "it has no manifest")
check(manifest["version"] == 2, f"this script reads format version 2, not {manifest['version']}")
check(not passed, "there are files after the last page")
said = {"count": pages, "files": files, "sha256": sums.hexdigest()}
check(manifest["pages"] == said, "the pages differ from the manifest")
print("valid:", manifest["tenant"], "with", files, "files")
