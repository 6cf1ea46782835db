"""A server that stands in for S3, and the file system of fsspec that reaches it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pytest

from fgclip_fast.data import remote


@contextmanager
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Run the server, named in the environment; its one bucket is called ``bucket``."""
    s3fs = pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        account = {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "word", "DEFAULT_REGION": "us-east-1"}
        for name, value in {"ENDPOINT_URL": f"http://{host}:{port}", **account}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        # Those of an earlier test ask that test's server.
        s3fs.S3FileSystem.clear_instance_cache()
        remote._filesystem.cache_clear()
        system = fsspec.filesystem("s3")
        system.mkdir("bucket")
        yield system
    finally:
        # What it holds would else be there in the next server of this process.
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        server.stop()
