"""Downloads from servers that lie, stall, break off or answer something else; and many processes that ask at once."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from detrex_backbones.checkpoint.fetch import Patience, cache_path, download
from detrex_backbones.errors import CheckpointFileError
from tests.checkpoint.server import Server, body, in_turn, status

AT_ONCE = Patience(attempts=3, backoff=0.0, timeout=20.0)
ATTEMPTS = AT_ONCE.attempts

ASK = """
import sys
from detrex_backbones.checkpoint.fetch import download
print("ready", flush=True)
sys.stdin.readline()
print(download(sys.argv[1]))
"""


@cache
def contents() -> dict[str, bytes]:
    """Extension -> a whole file."""
    state = {"weight": torch.arange(5_000.0), "bias": torch.ones(7)}
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save(state, zipped)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    arrays = pickle.dumps({name: value.numpy() for name, value in state.items()})
    return {
        "pth": zipped.getvalue(),
        "pt": legacy.getvalue(),
        "pkl": arrays,
        "safetensors": safetensors.torch.save(state),
    }


def said(data: bytes) -> Callable[[Any], None]:
    """Exactly these bytes and the end of the connection."""

    def answer(handler: Any) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return answer


CONTENT = contents()["pkl"]
PAGE = b"\n<!DOCTYPE html><html><body>Sign in to continue</body></html>"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

# What the server does, what our error says of it, and how often it is asked.
CASES: dict[str, tuple[Callable[[Any], None], str, int]] = {
    "says 404": (status(404), "the server says 404", 1),
    "says 410": (status(410), "the server says 410", 1),
    "says 500": (status(500), "the server says 500", ATTEMPTS),
    "says 503": (status(503), "the server says 503", ATTEMPTS),
    "says 206": (status(206), "the server says 206 .*, not 200", 1),
    "says 304": (status(304), "the server says 304", 1),
    "says nothing": (lambda handler: handler.connection.close(), "the connection broke off", ATTEMPTS),
    "is no web server": (said(b"SSH-2.0-Server\r\n\x1b[2J\r\n"), "the server's answer can't be read", ATTEMPTS),
    "sends a header without end": (said(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000), "can't be read", ATTEMPTS),
    "sends 200 headers": (said(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n"), "can't be read", ATTEMPTS),
    "breaks off before the announced length": (body(CONTENT[:999], length=len(CONTENT)), "999", ATTEMPTS),
    "announces too much": (body(CONTENT, length=len(CONTENT) + 1), "", ATTEMPTS),
    "breaks off in a chunk": (said(CHUNKED + b"ffff\r\n" + CONTENT[:99]), "the connection broke off", ATTEMPTS),
    "sends chunks without a length": (said(CHUNKED + b"what\r\n" + CONTENT), "the connection broke off", ATTEMPTS),
    "announces too little": (body(CONTENT, length=1000), "the end of the file is missing", 1),
    "breaks off without having announced a length": (
        said(b"HTTP/1.1 200 OK\r\n\r\n" + CONTENT[:1000]),
        "the end of the file is missing",
        1,
    ),
    "sends a page as such": (body(PAGE, Content_Type="text/html"), "a web page was received", 1),
    "sends a page as a file": (body(PAGE), "bytes of a web page were received", 1),
    "sends an error in JSON": (body(b'{"error": "gone"}', Content_Type="application/json"), "no checkpoint", 1),
    "sends a text": (body(b"Not found", Content_Type="text/plain"), "no checkpoint", 1),
    "sends a pointer of git-lfs": (body(b"version https://git-lfs.github.com/spec/v1\nsize 12\n"), "no checkpoint", 1),
    "sends nothing": (body(b""), "the download is empty", 1),
    "compresses unasked": (body(CONTENT, Content_Encoding="gzip"), "encoded as gzip", 1),
    "redirects to a file": (status(302, Location="file:///etc/passwd"), "not allowed|not followed", 1),
    "redirects to ftp": (status(302, Location="ftp://127.0.0.1/x.pkl"), "not allowed|not followed", 1),
    "redirects to data": (status(302, Location="data:,text"), "not allowed|not followed", 1),
    "redirects to no URL": (status(302, Location="http://[::1/x.pkl"), "redirects to an invalid one", 1),
    "redirects to no port": (status(302, Location="http://127.0.0.1:port/x.pkl"), "URL is invalid", 1),
    "redirects to no name": (status(302, Location="http://a..b/x.pkl"), "URL is invalid|no connection", 1),
    "redirects nowhere": (status(302), "the server says 302", 1),
}


def refused(server: Server, path: str, patience: Patience = AT_ONCE) -> tuple[str, int]:
    """The error of a download, and how often the server was asked. The cache has nothing afterwards."""
    before = len(server.requests)
    url = server.url + path
    try:
        download(url, patience=patience)
    except CheckpointFileError as error:
        text = str(error)
    else:
        raise AssertionError(f"{url} was taken")
    assert url in text and str(cache_path(url)) in text and text.isprintable()
    assert files_in_cache() == [], f"{url} left {files_in_cache()}"
    return text, len(server.requests) - before


def files_in_cache() -> list[str]:
    """All but the locks."""
    return sorted(path.name for path in Path(os.environ["DETREX_BACKBONES_CACHE"]).rglob("*.p*"))


def cut_everywhere(server: Server, places: int) -> int:
    """Cut each format at many places, the length announced as the whole's, as the cut one's, or not at all."""
    done = 0
    for extension, whole in contents().items():
        for index in range(places):
            part = whole[: len(whole) * index // places]
            ways = {"whole": body(part, length=len(whole))}
            if extension != "pt":  # whose end can't be told without reading it: `load_checkpoint` refuses it
                ways |= {"cut": body(part), "none": said(b"HTTP/1.1 200 OK\r\n\r\n" + part)}
            for way, answer in ways.items():
                path = f"/{way}/{index}.{extension}"
                server.answers[path] = answer
                refused(server, path)
                done += 1
    return done


def ask(url: str, processes: int) -> list[subprocess.Popen[str]]:
    """Processes that are told to ask at once."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    asking = [subprocess.Popen([sys.executable, "-c", ASK, url], **pipes) for _ in range(processes)]
    assert [process.stdout and process.stdout.readline() for process in asking] == ["ready\n"] * processes
    for process in asking:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return asking


def all_at_once(server: Server, path: str, processes: int) -> int:
    """How many requests it takes to give a file to processes that ask at once."""
    server.answers[path] = body(CONTENT)
    answers = [process.communicate(timeout=120)[0].strip() for process in ask(server.url + path, processes)]
    assert set(answers) == {str(cache_path(server.url + path))}
    return server.requests.count(path)


def one_is_killed(server: Server, path: str, processes: int) -> int:
    """Of several processes that ask at once, the one that downloads is killed half way: another takes over."""
    half, killed = threading.Event(), threading.Event()

    def stall(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:5000])
        half.set()
        killed.wait()

    server.answers[path] = in_turn(stall, body(CONTENT))
    first = ask(server.url + path, 1)[0]
    assert half.wait(timeout=120)
    others = ask(server.url + path, processes - 1)
    first.kill()
    first.communicate()
    killed.set()
    answers = [process.communicate(timeout=120)[0].strip() for process in others]
    assert set(answers) == {str(cache_path(server.url + path))}
    assert cache_path(server.url + path).read_bytes() == CONTENT
    return server.requests.count(path)


def run(places: int = 64, rounds: int = 10, processes: int = 8) -> dict[str, int]:
    """Everything."""
    logging.getLogger("detrex_backbones").setLevel(logging.ERROR)  # it tells of each attempt
    server = Server()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DETREX_BACKBONES_CACHE"] = folder
        for number, (answer, reason, attempts) in enumerate(CASES.values()):
            server.answers[f"/{number}.pkl"] = answer
            text, asked = refused(server, f"/{number}.pkl")
            assert asked == attempts and re.search(reason, text), text
        cut = cut_everywhere(server, places)
        asked = [all_at_once(server, f"/once/{number}.pkl", processes) for number in range(rounds)]
        again = [one_is_killed(server, f"/killed/{number}.pkl", processes) for number in range(rounds)]
    server.close()
    assert set(asked) == {1} and set(again) == {2}
    return {
        "servers that misbehave": len(CASES),
        "cut bodies refused": cut,
        f"times that {processes} processes asked at once": rounds,
        "requests for each": 1,
        f"times that the one of {processes} that downloads was killed": rounds,
        "requests for each of these": 2,
        "files left half-written": 0,
    }
