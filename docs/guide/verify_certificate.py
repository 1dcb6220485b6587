"""Checks a certificate of deletion without Tenantry: python3 verify_certificate.py CERTIFICATE PUBLIC_KEY

Needs only the library `cryptography` and the public key as PEM, from a place that you trust. Exit code 0: genuine.
"""

import base64
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_pem_public_key

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
with open(sys.argv[2], "rb") as file:
    public_key = load_pem_public_key(file.read())

# The signed message: a heading, a line feed, and the certificate with sorted keys and without spaces.
certificate = json.dumps(document["certificate"], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
message = f"tenantry deletion certificate v1\n{certificate}".encode()
signature = base64.urlsafe_b64decode(document["signature"] + "==")
try:
    public_key.verify(signature, message)
except InvalidSignature:
    sys.exit("not genuine: the certificate was changed after it was issued")
print("genuine:", document["certificate"]["tenant_id"])
for clone in document["certificate"].get("clones", []):
    print("not deleted:", clone["tenant_id"], "is a clone of it, masked:", ", ".join(clone["masked"]) or "nothing")
