"""AWS Signature Version 4, how S3 clients prove their secret: computed from what arrived."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlsplit

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


def find_signer(
    method: str, target: str, headers: Mapping[str, str], secrets: Mapping[str, str]
) -> tuple[str, str]:
    """Given `headers` with names in lower case and `secrets` by access key, return the access key
    and what S3 says of the signature: "", "InvalidAccessKeyId" or "SignatureDoesNotMatch"."""
    match = AUTHORIZATION.fullmatch(headers.get("authorization", ""))
    if match is None or match[1] not in secrets:
        return match[1] if match else "", "InvalidAccessKeyId"
    access_key, day, region, names, signature = match.groups()
    scope = f"{day}/{region}/s3/aws4_request"
    request = hashlib.sha256(
        make_canonical_request(method, target, headers, names).encode()
    ).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{headers.get('x-amz-date', '')}\n{scope}\n{request}"
    key = f"AWS4{secrets[access_key]}".encode()
    for part in (day, region, "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()

    return access_key, "" if hmac.compare_digest(key.hex(), signature) else "SignatureDoesNotMatch"


def make_canonical_request(method: str, target: str, headers: Mapping[str, str], names: str) -> str:
    """Return what a client of S3 signs: AWS Signature Version 4, "Create a canonical request"."""
    url = urlsplit(target)
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(parse_qsl(url.query, keep_blank_values=True))
    )
    lines = "".join(
        f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names.split(";")
    )

    return "\n".join(
        [method, url.path, query, lines, names, headers.get("x-amz-content-sha256", "")]
    )
