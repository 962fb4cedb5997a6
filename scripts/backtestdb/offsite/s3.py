"""A bucket of an S3 server. Requests, signatures and connections are obstore's; every failure
becomes a sentence with its cause within a minute."""

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from backtestdb.errors import SettingsError
from backtestdb.offsite.errors import MissingObjectError, NameTakenError, OffsiteError, TooSlowError
from backtestdb.offsite.store import Stored, Target

CONNECT_SECONDS, REQUEST_SECONDS, RETRY_SECONDS = 5, 25, 10
ANOTHER_TIME = "nothing to do: the copies go on by themselves when it answers again"
CODE = re.compile(r"(?:<Code>|\(code: )(\w+)")
STATUS = re.compile(r"status code: (\d{3})")
# Error codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
CREDENTIALS = "check OFFSITE_KEY_ID, OFFSITE_SECRET and what the key may do (docs/DATABASE.md)"
CAUSES = {
    "NoSuchBucket": ("the bucket does not exist", "make the bucket, or change OFFSITE"),
    "PermanentRedirect": (
        "the bucket lies in another region",
        "set OFFSITE_ENDPOINT to its region's",
    ),
    "InvalidAccessKeyId": ("the server does not know this access key", CREDENTIALS),
    "SignatureDoesNotMatch": ("the secret does not belong to the access key", CREDENTIALS),
    "AccessDenied": ("these credentials may not do this", CREDENTIALS),
    "RequestTimeTooSkewed": (
        "this machine's clock differs from the server's",
        "set the clock right",
    ),
    "QuotaExceeded": ("the store is full", "raise its quota, or make offsite-prune"),
    "XMinioStorageFull": ("the store is full", "free space there, or make offsite-prune"),
    "InsufficientStorage": ("the store is full", "free space there, or make offsite-prune"),
    "SlowDown": ("the server asks for fewer requests", ANOTHER_TIME),
}
BY_STATUS = {"401": "InvalidAccessKeyId", "403": "AccessDenied", "507": "InsufficientStorage"}


def open_s3(target: Target) -> "BucketStore":
    address = urlsplit(target.address)
    if not address.netloc:
        raise SettingsError(
            f"OFFSITE={target.address} names no bucket", next_step="write s3://bucket/prefix"
        )
    return BucketStore(target, address.netloc, address.path.strip("/"))


class BucketStore:
    def __init__(self, target: Target, bucket: str, prefix: str) -> None:
        self.where = target.address
        self.target, self.name, self.prefix = target, bucket, prefix
        self.bucket = self.connect({})

    def connect(self, headers: dict[str, str]) -> S3Store:
        """Return a connection; empty settings are those of this machine's AWS tools."""
        target = self.target
        return S3Store(
            self.name,
            prefix=self.prefix or None,
            endpoint=target.endpoint or None,
            access_key_id=target.key_id or None,
            secret_access_key=target.secret or None,
            region=region_of(target.endpoint),
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": target.endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                "timeout": timedelta(seconds=REQUEST_SECONDS),
                "default_headers": headers,
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )

    def put(self, name: str, data: bytes) -> None:
        try:
            obstore.put(self.bucket, name, data, mode="create", use_multipart=False)
        except AlreadyExistsError:
            raise NameTakenError(f"{self.where}/{name} is there already") from None
        except (BaseError, OSError) as error:
            raise explain(error, self.where) from None

    def get(self, name: str) -> bytes:
        try:
            return bytes(obstore.get(self.bucket, name).bytes())
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise explain(error, self.where) from None
            raise MissingObjectError(f"{self.where}/{name} is missing") from None
        except (BaseError, OSError) as error:
            raise explain(error, self.where) from None

    def list(self, prefix: str = "") -> Iterator[Stored]:
        try:
            for chunk in obstore.list(self.bucket, prefix or None):
                for entry in chunk:
                    yield Stored(entry["path"], entry["size"], entry["last_modified"])
        except (BaseError, OSError) as error:
            raise explain(error, self.where) from None

    def delete(self, name: str) -> None:
        try:
            obstore.delete(self.bucket, name)
        except (BaseError, OSError) as error:
            raise explain(error, self.where) from None

    def refuses_wrong_checksum(self, name: str) -> bool:
        """Send bytes with the Content-MD5 of others: a server that checks does not store them."""
        wrong = base64.b64encode(
            hashlib.md5(b"other bytes", usedforsecurity=False).digest()
        ).decode()
        try:
            obstore.put(
                self.connect({"Content-MD5": wrong}), name, b"these bytes", use_multipart=False
            )
        except (BaseError, OSError):
            return True
        return False


def region_of(endpoint: str) -> str:
    """Return the region: Amazon's and most others' hosts name it; a private server takes any."""
    found = re.search(r"[.-]((?:af|ap|ca|eu|il|me|mx|sa|us)-[a-z-]+-\d+|[a-z]+-\d{3})\b", endpoint)
    return found[1] if found else "us-east-1"


def explain(error: Exception, where: str) -> OffsiteError:
    """Return what the server's own code means."""
    # The library's text names addresses, headers and source lines: it is left out.
    text = str(error)
    code, status = CODE.search(text), STATUS.search(text)

    found = code[1] if code else BY_STATUS.get(status[1], "") if status else ""
    if found in CAUSES:
        cause, next_step = CAUSES[found]
        return OffsiteError(f"{where}: {cause} ({found})", next_step=next_step)
    if status:
        what = f"the server answered {status[1]}{f' {found}' if found else ''}"
        return OffsiteError(f"{where}: {what}", next_step=ANOTHER_TIME)

    if "timed out" in text or "operation timed out" in text.lower() or "Timeout" in text:
        return TooSlowError(
            f"{where}: no answer within {REQUEST_SECONDS} s", next_step=ANOTHER_TIME
        )

    if "dns error" in text or "lookup address" in text:
        return OffsiteError(
            f"{where}: the name of the server is not known here", next_step="check the network"
        )

    return OffsiteError(
        f"{where}: the server cannot be reached", next_step="check the network and OFFSITE_ENDPOINT"
    )
