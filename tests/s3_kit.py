"""A server that speaks S3 on a loopback port: moto's, which checks signatures and rights as AWS does, and forgets all at its end.

It answers ranges, conditions, multipart uploads and errors (NoSuchBucket, SignatureDoesNotMatch, ...) in AWS's own words.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from typing import Any

BUCKET = "davy"
_ALL = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
# Who asks moto for IAM must sign for IAM, but until `guard` nobody looks at the signature.
_UNSIGNED = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0"


class S3Server:
    """One server with one bucket, and one user who may do everything.

    Attributes:
        environment: what a client's process needs to reach it.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `stop` closes it
        self.process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "moto.server", "-p", str(self.port)], stdout=subprocess.DEVNULL,
                                        stderr=self._log)
        self._wait()
        self._ask("PUT", f"/{BUCKET}")
        self._iam(Action="CreateUser", UserName="davy")
        key = self._iam(Action="CreateAccessKey", UserName="davy")
        self._iam(Action="PutUserPolicy", UserName="davy", PolicyName="all", PolicyDocument=_ALL)
        self.key, self.secret = (re.findall(f"<{name}>(.*?)<", key)[0] for name in ("AccessKeyId", "SecretAccessKey"))
        self.environment = {"AWS_ENDPOINT_URL": self.url, "AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}
        self.guard(True)

    def guard(self, on: bool) -> None:
        """Whether signatures are checked. moto can't check those in URLs, so that signed URLs are tried without."""
        self._ask("POST", "/moto-api/reset-auth", b"0" if on else b"inf", {"content-type": "text/plain"})

    def asked(self, about: str) -> list[str]:
        """The methods of all requests so far whose path or query holds this text."""
        lines = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0).decode(errors="replace").splitlines()
        found = (re.search(r'"(?:\x1b\[\d+m)*([A-Z]+) (\S+) HTTP', line) for line in lines)
        return [match[1] for match in found if match and about in match[2]]

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert self.process.poll() is None, "moto.server has ended: is moto[s3] with flask and flask-cors installed?"
                assert time.monotonic() < deadline, "moto.server does not answer"
                time.sleep(0.02)
            else:
                return

    def _iam(self, **asked: str) -> str:
        body = urllib.parse.urlencode({**asked, "Version": "2010-05-08"}).encode()
        return self._ask("POST", "/", body, {"authorization": _UNSIGNED, "content-type": "application/x-www-form-urlencoded"})

    def _ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, Any] | None = None) -> str:
        with urllib.request.urlopen(urllib.request.Request(self.url + path, body, headers or {}, method=method)) as answer:
            return str(answer.read().decode())
