"""Real S3 servers on this machine: moto's, with users, policies and signatures, as a process of its
own.

Between it and the code under test stands a proxy where a test wants one: see faulty_proxy.py.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backtestdb.config import PROJECT_DIR
from backtestdb.offsite.store import Target

REQUIREMENTS = Path(__file__).with_name("requirements-s3-server.txt")
PACKAGES = PROJECT_DIR / ".venv" / "s3-server"
BUCKET = "backups"
PUT_ONLY = ("s3:PutObject", "s3:GetObject", "s3:ListBucket")
START_SECONDS = 60.0

# Runs inside the server's process, before it serves: users and their keys can only be made while
# nobody is asked.
STARTER = """
import json, sys
from moto.server import ThreadedMotoServer
from moto.core import set_initial_no_auth_action_count
port, bucket, users = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
import boto3
server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
server.start()
here = dict(endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
            aws_access_key_id="setup", aws_secret_access_key="setup")
boto3.client("s3", **here).create_bucket(Bucket=bucket)
keys = {}
for name, actions in users.items():
    iam = boto3.client("iam", **here)
    iam.create_user(UserName=name)
    allowed = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [allowed]}
    iam.put_user_policy(UserName=name, PolicyName="all", PolicyDocument=json.dumps(policy))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    keys[name] = [made["AccessKeyId"], made["SecretAccessKey"]]
if users:
    import moto.core.responses
    moto.core.responses.ActionAuthenticatorMixin.request_count = float("inf")
    import moto.settings
    moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
    moto.core.responses.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
print(json.dumps(keys), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class S3Server:
    """`keys`: user -> access key and secret; nobody is asked for one where there are no users."""

    endpoint: str
    keys: dict[str, list[str]]

    def target(self, prefix: str, user: str = "", endpoint: str = "") -> Target:
        key_id, secret = self.keys.get(user, ["any", "any"])
        return Target(
            address=f"s3://{BUCKET}/{prefix}",
            endpoint=endpoint or self.endpoint,
            key_id=key_id,
            secret=secret,
        )

    def environment(self, prefix: str, user: str = "", endpoint: str = "") -> dict[str, str]:
        target = self.target(prefix, user, endpoint)
        return {
            "OFFSITE": target.address,
            "OFFSITE_ENDPOINT": target.endpoint,
            "OFFSITE_KEY_ID": target.key_id,
            "OFFSITE_SECRET": target.secret,
        }


def ensure_packages() -> None:
    """Several test workers may need it at once; one of them installs."""
    mark = PACKAGES / "installed.txt"
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with (PACKAGES / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if mark.is_file() and mark.read_text() == REQUIREMENTS.read_text():
            return
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*command, "--upgrade", "--target", str(PACKAGES), "-r", str(REQUIREMENTS)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (
            f"the S3 server of the tests could not be installed:\n{done.stderr}"
        )
        mark.write_text(REQUIREMENTS.read_text())


@contextmanager
def running_s3(users: dict[str, tuple[str, ...]] | None = None) -> Iterator[S3Server]:
    """A server with one bucket. With `users` every request needs the signature of one of them, and
    may do what the user's actions name."""
    ensure_packages()
    port = free_port()
    # A file: a pipe that is not read stops the server once it is full, after 64 kB.
    with tempfile.TemporaryFile(mode="w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, str(port), BUCKET, json.dumps(users or {})],
            env=os.environ
            | {"PYTHONPATH": str(PACKAGES), "PYTHONDONTWRITEBYTECODE": "1", "no_proxy": "*"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                process.wait()
                errors.seek(0)
                raise AssertionError(f"no S3 server: {errors.read()[-2000:]}")
            yield S3Server(f"http://127.0.0.1:{port}", json.loads(line))
        finally:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
