"""Downloads: once, whole and checked, or an error that says what to do; never half a file."""

import errno
import hashlib
import io
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
import requests
from filelock import FileLock

from detrex_backbones.cache import lock_file
from detrex_backbones.checkpoint.fetch import Patience, cache_folder, cache_path, download, hash_in_name
from detrex_backbones.checkpoint.fetch import http_file as module
from detrex_backbones.checkpoint.files import read_checkpoint
from detrex_backbones.checkpoint.read import is_cut
from detrex_backbones.errors import CheckpointFileError
from tests.soak import downloads

from .server import Server, body, in_turn, status

CONTENT = pickle.dumps({"weight": list(range(50_000))})
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()
AT_ONCE = Patience(attempts=3, backoff=0.0, timeout=20.0)


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", str(folder))
    return folder


def files_in(cache: Path) -> list[str]:
    """All that a user would take for a checkpoint, and all that is left over."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_comes_whole_and_is_not_asked_for_again(server, cache):
    server.answers["/folder/net.pkl"] = body(CONTENT)
    path = download(f"{server.url}/folder/net.pkl", f"sha256:{SHA256[:8]}")
    assert path.read_bytes() == CONTENT
    assert path.relative_to(cache).parts[1:] == ("folder", "net.pkl")
    server.close()  # no network from now on
    assert download(f"{server.url}/folder/net.pkl") == path
    assert server.requests == ["/folder/net.pkl"]
    assert files_in(cache) == ["net.pkl"]


def test_a_file_put_there_by_hand_is_taken(cache):
    path = cache_path("https://example.org/a/net.pth")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"by hand")
    assert download("https://example.org/a/net.pth", "sha256:00000000") == path


@pytest.mark.parametrize(
    "hash",
    ["", f"sha256:{SHA256}", f"md5:{MD5[:6]}", f"any:{SHA256[:8]}", f"any:{MD5[:8]}", f"sha256:{SHA256[:9].upper()}"],
)
def test_the_right_hash_passes(server, cache, hash):
    server.answers["/net.pkl"] = body(CONTENT)
    assert download(f"{server.url}/net.pkl", hash).read_bytes() == CONTENT


@pytest.mark.parametrize("hash", ["sha256:deadbeef", "md5:deadbe", "any:deadbeef", f"md5:{SHA256[:8]}"])
def test_a_wrong_hash_is_refused_at_once(server, cache, hash):
    server.answers["/net.pkl"] = body(CONTENT)
    with pytest.raises(CheckpointFileError, match="it is another file") as caught:
        download(f"{server.url}/net.pkl", hash, patience=AT_ONCE)
    assert hash.partition(":")[2] in str(caught.value)
    assert f"{server.url}/net.pkl" in str(caught.value)
    assert str(cache_path(f"{server.url}/net.pkl")) in str(caught.value)
    assert len(server.requests) == 1
    assert files_in(cache) == []


def test_a_cut_body_is_asked_for_again_and_then_refused(server, cache):
    server.answers["/net.pkl"] = body(CONTENT[:1000], length=len(CONTENT))
    with pytest.raises(CheckpointFileError, match=r"1,000 bytes were received, .* were announced|broke off"):
        download(f"{server.url}/net.pkl", patience=AT_ONCE)
    assert len(server.requests) == 3
    assert files_in(cache) == []


def test_a_cut_body_and_then_a_whole_one_is_fine(server, cache):
    server.answers["/net.pkl"] = in_turn(body(CONTENT[:1000], length=len(CONTENT)), body(CONTENT))
    path = download(f"{server.url}/net.pkl", f"sha256:{SHA256[:8]}", patience=AT_ONCE)
    assert path.read_bytes() == CONTENT


def test_a_length_that_lies_is_found_by_the_hash(server, cache):
    server.answers["/net.pkl"] = body(CONTENT, length=1000)
    with pytest.raises(CheckpointFileError, match="it is another file: 1,000 bytes"):
        download(f"{server.url}/net.pkl", f"sha256:{SHA256[:8]}")
    assert files_in(cache) == []


def test_a_length_that_lies_is_found_in_a_torch_file_without_a_hash(server, cache):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", CONTENT)
    server.answers["/net.pth"] = body(buffer.getvalue(), length=1000)
    with pytest.raises(CheckpointFileError, match="the end of the file is missing"):
        download(f"{server.url}/net.pth")
    assert files_in(cache) == []


@pytest.mark.parametrize(("code", "asked"), [(404, 1), (403, 1), (401, 1), (500, 3), (503, 3), (429, 3)])
def test_errors_of_the_server_say_what_came(server, cache, code, asked):
    server.answers["/net.pkl"] = status(code)
    with pytest.raises(CheckpointFileError, match=f"the server says {code}") as caught:
        download(f"{server.url}/net.pkl", f"sha256:{SHA256[:8]}", patience=AT_ONCE)
    assert f"{server.url}/net.pkl" in str(caught.value)
    assert len(server.requests) == asked
    assert files_in(cache) == []


@pytest.mark.parametrize("does", downloads.CASES)
def test_a_server_that_misbehaves_leaves_nothing_in_the_cache(server, cache, does):
    answer, said, attempts = downloads.CASES[does]
    server.answers["/net.pkl"] = answer
    text, asked = downloads.refused(server, "/net.pkl")
    assert re.search(said, text)
    assert asked == attempts
    assert files_in(cache) == []


def test_cut_bodies_of_every_format_stay_out_of_the_cache(server, cache):
    assert downloads.cut_everywhere(server, places=4) == 4 * (3 * 3 + 1)


@pytest.mark.parametrize("extension", downloads.contents())
def test_whole_files_of_every_format_are_taken_whether_their_length_is_announced_or_not(server, cache, extension):
    content = downloads.contents()[extension]
    server.answers[f"/announced.{extension}"] = body(content)
    server.answers[f"/not.{extension}"] = downloads.said(b"HTTP/1.1 200 OK\r\n\r\n" + content)
    for name in ("announced", "not"):
        path = download(f"{server.url}/{name}.{extension}", patience=AT_ONCE)
        assert path.read_bytes() == content
        assert set(read_checkpoint(path).tensors) == {"weight", "bias"}


@pytest.mark.parametrize(
    "header", [b"{", b"{}", b"[]", b"{'a'", b'{"a": 1}', b'{"a": {"data_offsets": [0]}}', b"\xff" * 9]
)
def test_headers_of_safetensors_that_tell_no_size(tmp_path, header):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    assert is_cut(path, "safetensors")


def test_what_a_server_says_is_shown_on_one_line_without_what_a_terminal_obeys(server, cache):
    server.answers["/net.pkl"] = downloads.said(b"HTTP/1.1 404 \x1b[2J\x07gone\r\n\r\n")
    text, _ = downloads.refused(server, "/net.pkl")
    assert r"the server says 404 \x1b[2J\x07gone" in text


def test_threads_that_ask_at_once_cause_one_download(server, cache):
    server.answers["/net.pkl"] = body(CONTENT)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(download, [f"{server.url}/net.pkl"] * 8))
    assert paths == {cache_path(f"{server.url}/net.pkl")}
    assert server.requests == ["/net.pkl"]


@pytest.mark.slow
def test_the_one_that_downloads_is_killed_and_another_takes_over(server, cache):
    assert downloads.one_is_killed(server, "/net.pkl", processes=3) == 2
    assert files_in(cache) == ["net.pkl"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("step", ["mkdir", "open", "replace"])
def test_a_cache_that_takes_nothing(server, cache, monkeypatch, step, number):
    usual = getattr(Path, step)

    def fail(path, *args, **kwargs):
        if step == "open" and args != ("xb",):
            return usual(path, *args, **kwargs)
        raise OSError(number, os.strerror(number))

    server.answers["/net.pkl"] = body(CONTENT)
    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(CheckpointFileError, match=rf"can't write .*{os.strerror(number)}.*DETREX_BACKBONES_CACHE"):
        download(f"{server.url}/net.pkl")
    monkeypatch.undo()
    assert files_in(cache) == []


def test_a_server_that_recovers_is_forgiven(server, cache):
    server.answers["/net.pkl"] = in_turn(status(500), status(502), body(CONTENT))
    assert download(f"{server.url}/net.pkl", patience=AT_ONCE).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_the_waits_between_attempts_double_and_end(server, cache, monkeypatch):
    waits = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    server.answers["/net.pkl"] = status(500)
    with pytest.raises(CheckpointFileError):
        download(f"{server.url}/net.pkl", patience=Patience(attempts=4, backoff=1.5))
    assert waits == [1.5, 3.0, 6.0]


def test_a_server_that_stalls_is_given_up(server, cache):
    def stall(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])
        handler.wfile.flush()
        server.release.wait()

    server.answers["/net.pkl"] = stall
    with pytest.raises(CheckpointFileError, match="the server stopped answering"):
        download(f"{server.url}/net.pkl", patience=Patience(attempts=2, backoff=0.0, timeout=0.05))
    assert len(server.requests) == 2
    assert files_in(cache) == []


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (body(b"<html>log in</html>", Content_Type="text/html; charset=utf-8"), "a web page was received"),
        (body(b"\n <!DOCTYPE html><p>log in</p>"), "bytes of a web page were received"),
        (body(b""), "the download is empty"),
        (body(CONTENT, Content_Encoding="gzip"), "encoded as gzip"),
        (status(204), "204"),
    ],
)
def test_what_is_no_checkpoint_is_refused(server, cache, answer, said):
    server.answers["/net.pkl"] = answer
    with pytest.raises(CheckpointFileError, match=said):
        download(f"{server.url}/net.pkl", patience=AT_ONCE)
    assert files_in(cache) == []


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server, cache, code):
    server.answers["/old/net.pkl"] = status(code, Location="/new/place?token=1")
    server.answers["/new/place"] = body(CONTENT)
    path = download(f"{server.url}/old/net.pkl", f"sha256:{SHA256[:8]}")
    assert path.read_bytes() == CONTENT
    assert path == cache_path(f"{server.url}/old/net.pkl")


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/net.pkl"])
def test_redirects_out_of_http_are_not_followed(server, cache, target):
    server.answers["/net.pkl"] = status(302, Location=target)
    with pytest.raises(CheckpointFileError, match=r"is not followed|is not allowed"):
        download(f"{server.url}/net.pkl", patience=AT_ONCE)
    assert files_in(cache) == []


def test_a_redirect_from_https_to_http_is_not_followed():
    response = requests.Response()
    response.status_code, response.url, response.raw = 302, "https://example.org/a", io.BytesIO()
    for target, followed in (("http://example.org/b", False), ("https://example.org/b", True), ("/b", True)):
        response.headers["Location"] = target
        with nullcontext() if followed else pytest.raises(module._FailedError, match="is not followed"):
            module._check_redirect(response)


def test_a_redirect_in_a_circle_ends(server, cache):
    server.answers["/net.pkl"] = status(302, Location="/net.pkl")
    with pytest.raises(CheckpointFileError, match="it redirects more than 10 times"):
        download(f"{server.url}/net.pkl", patience=AT_ONCE)
    assert len(server.requests) == 11
    assert files_in(cache) == []


def test_the_text_of_a_redirect_is_not_read(server, cache):
    """It may be of any length: a server that never ends it holds nobody up."""

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", "/new.pkl")
        handler.end_headers()
        handler.wfile.write(bytes(1000))
        handler.wfile.flush()
        server.release.wait()

    server.answers["/net.pkl"], server.answers["/new.pkl"] = answer, body(CONTENT)
    patience = Patience(attempts=1, timeout=2.0)
    assert download(f"{server.url}/net.pkl", patience=patience).read_bytes() == CONTENT


def test_a_redirect_of_60000_characters_is_shown_in_part(server, cache):
    server.answers["/net.pkl"] = status(302, Location="ftp://example.org/" + "x" * 60_000)
    text, asked = downloads.refused(server, "/net.pkl")
    assert "it redirects to ftp://example.org/xxx" in text
    assert len(text) < 1500 and asked == 1


def test_no_credentials_are_sent(server, cache, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", "secret")
    server.answers["/net.pkl"] = body(CONTENT)
    download(f"{server.url}/net.pkl")
    server.answers["/old.pkl"] = status(302, Location=f"{server.url}/new.pkl")
    server.answers["/new.pkl"] = body(CONTENT)
    download(f"{server.url}/old.pkl")
    for headers in server.headers:
        assert set(headers) == {"Accept", "Accept-Encoding", "Connection", "Host", "User-Agent"}
    with pytest.raises(CheckpointFileError, match="user name or password") as caught:
        download("https://me:secret@example.org/net.pkl")
    assert "secret" not in str(caught.value)


def test_without_a_network_the_error_says_which_file_to_put_where(cache):
    with socket.socket() as closed:  # a port where nobody listens
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/models/net-{SHA256[:8]}.pkl"
        with pytest.raises(CheckpointFileError, match="no connection") as caught:
            download(url, f"sha256:{SHA256[:8]}", patience=Patience(backoff=1000.0))  # which it would never wait out
    for text in (url, f"sha256 {SHA256[:8]}...", f"put it at {cache_path(url)}"):
        assert text in str(caught.value)
    assert files_in(cache) == []


def test_a_name_that_resolves_nowhere_is_no_network(cache, monkeypatch):
    def nowhere(*args, **kwargs):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(CheckpointFileError, match="is there a network") as caught:
        download("https://example.org/net.pth", patience=Patience(backoff=1000.0))
    assert str(cache_path("https://example.org/net.pth")) in str(caught.value)


@pytest.mark.parametrize(
    "url", ["ftp://example.org/net.pth", "https://example.org", "https://[::1/x", "https://a:b/x.pth"]
)
def test_what_is_no_url_of_a_file_is_refused(cache, url):
    with pytest.raises(CheckpointFileError):
        download(url)
    assert not cache.exists()


ASK = """
import sys
from detrex_backbones.checkpoint.fetch import download
print("ready", flush=True)
sys.stdin.readline()
print(download(sys.argv[1], sys.argv[2]))
"""


def test_processes_that_ask_at_once_cause_one_download(server, cache):
    all_asked = threading.Event()

    def answer(handler):
        all_asked.wait()  # the first to ask is not done before the last is told to
        body(CONTENT)(handler)

    server.answers["/net.pkl"] = answer
    command = [sys.executable, "-c", ASK, f"{server.url}/net.pkl", f"sha256:{SHA256[:8]}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, env=os.environ.copy(), **pipes) for _ in range(8)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 8
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    all_asked.set()
    answers = {process.communicate()[0].strip() for process in processes}
    assert answers == {str(cache_path(f"{server.url}/net.pkl"))}
    assert [process.returncode for process in processes] == [0] * 8
    assert server.requests == ["/net.pkl"]


def test_the_second_to_ask_gets_the_file_of_the_first(server, cache):
    """Held up while it waits for the lock, it finds the file there and asks nobody."""
    server.answers["/net.pkl"] = body(CONTENT)
    url = f"{server.url}/net.pkl"
    with FileLock(lock_file(url)):
        process = subprocess.Popen(
            [sys.executable, "-c", ASK, url, ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.stdin.write("go\n")
        process.stdin.flush()
        process.stdout.readline()
        cache_path(url).parent.mkdir(parents=True, exist_ok=True)
        cache_path(url).write_bytes(b"of the first")
    assert process.communicate()[0].strip() == str(cache_path(url))
    assert server.requests == []


def test_what_a_crash_left_is_removed(server, cache):
    server.answers["/net.pkl"] = body(CONTENT)
    path = cache_path(f"{server.url}/net.pkl")
    path.parent.mkdir(parents=True)
    (path.parent / f".{path.name}.0123abcd.partial").write_bytes(b"x" * 10 * len(CONTENT))
    assert download(f"{server.url}/net.pkl").read_bytes() == CONTENT
    assert files_in(cache) == ["net.pkl"]


def test_no_name_of_a_part_is_foreseeable_and_no_link_is_followed(server, cache, tmp_path, monkeypatch):
    """What others put in the place of the part, of the file, or of both, is never written through."""
    server.answers["/net.pkl"] = body(CONTENT)
    mine = tmp_path / "mine"
    mine.write_text("of the user")
    path = cache_path(f"{server.url}/net.pkl")
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "nowhere")
    drawn = iter(["0000", "0000", "0001"])
    monkeypatch.setattr("detrex_backbones.atomic_write.secrets.token_hex", lambda count: next(drawn))
    for name in (f"{path.name}.part", f".{path.name}.0000.partial"):
        (path.parent / name).symlink_to(mine)
    download(f"{server.url}/net.pkl")
    assert mine.read_text() == "of the user"
    assert not (tmp_path / "nowhere").exists()
    assert path.read_bytes() == CONTENT and not path.is_symlink()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs the owners of POSIX")
@pytest.mark.parametrize("folder", [".", ".locks", "127.0.0.1"])
def test_a_cache_of_another_user_where_everybody_writes_is_refused(server, cache, monkeypatch, folder):
    url = f"{server.url}/net.pkl"
    server.answers["/net.pkl"] = body(CONTENT)
    path = cache_path(url)
    folder = cache / folder if folder != "127.0.0.1" else path.parent
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert download(url) == path  # of this user: a volume of a container, for example
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    with pytest.raises(CheckpointFileError, match=r"belongs to another user .*DETREX_BACKBONES_CACHE"):
        download(url)
    folder.chmod(0o755)
    assert download(url) == path  # shared by its owner alone


def test_a_user_without_a_home_is_told_to_name_a_cache(monkeypatch):
    for name in ("DETREX_BACKBONES_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(CheckpointFileError, match=r"no home folder .*DETREX_BACKBONES_CACHE"):
        download("https://example.org/net.pth")


def test_an_interrupt_leaves_nothing(server, cache, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    server.answers["/net.pkl"] = body(CONTENT)
    monkeypatch.setattr(module, "what_is_wrong", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download(f"{server.url}/net.pkl")
    assert files_in(cache) == []


def test_a_full_disk_is_said_to_be_one(server, cache, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    server.answers["/net.pkl"] = body(CONTENT)
    monkeypatch.setattr(module.os, "fsync", full)
    with pytest.raises(CheckpointFileError, match=r"can't write .*No space left.*DETREX_BACKBONES_CACHE"):
        download(f"{server.url}/net.pkl")
    assert files_in(cache) == []


def test_a_cache_that_is_a_file_is_said_to_be_one(server, cache):
    cache.write_text("not a folder")
    with pytest.raises(CheckpointFileError, match="can't write"):
        download(f"{server.url}/net.pkl")


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.delenv("DETREX_BACKBONES_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "detrex_backbones"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "detrex_backbones"
    monkeypatch.setenv("DETREX_BACKBONES_CACHE", "~/own")
    assert cache_folder() == tmp_path / "own"


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://a.org/../../x.pth",
            "https://a.org/%2e%2e/%2e%2e/x.pth",
            "https://a.org/b/..",
            "https://a.org/b/%2E/x",
        ),
        *("https://a.org/good/%2e%2e%2Fx.pth", "https://a.org/good/..%5Cx.pth"),
    ],
)
def test_no_url_goes_up(cache, url):
    """Such a URL would share its place in the cache with another one."""
    with pytest.raises(CheckpointFileError, match=r"contains '\.\.'"):
        cache_path(url)


def test_no_url_leads_out_of_the_cache_or_to_the_place_of_another(cache):
    assert cache in cache_path("https://a.org/%2Fetc%2Fx.pth").parents
    urls = ["x.pth", "x.pth?v=1", "x.pth?v=2", "a%2Fx.pth", "a%5Fx.pth", "a@x.pth", "a%3Fx.pth", "a_x.pth?", "b/x.pth"]
    # "%5F" is "_", however it is spelt; so is an empty query none.
    assert len({cache_path(f"https://a.org/{url}") for url in urls}) == len(urls) - 1
    assert cache_path("https://a.org/x.pth") != cache_path("https://b.org/x.pth")


@pytest.mark.parametrize(
    ("name", "hash"),
    [
        ("resnet50-0676ba61.pth", "any:0676ba61"),
        ("net-deadbeef.pth.tar", "any:deadbeef"),
        ("net-20210531.pth", ""),  # a date
        ("net_deadbeef.pth", ""),
        ("net-cafe.pth", ""),
        ("R-50.pkl", ""),
    ],
)
def test_hashes_are_found_in_names(name, hash):
    assert hash_in_name(f"https://example.org/{name}?x=1-abcdef12.pth") == hash


def test_progress_is_shown_on_a_terminal_only(server, cache, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    server.answers["/net.pkl"] = server.answers["/other.pkl"] = body(CONTENT)
    for name, stream, shown in (("net.pkl", Terminal(), True), ("other.pkl", io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        download(f"{server.url}/{name}")
        assert (f"{name}: 100%" in stream.getvalue()) is shown
