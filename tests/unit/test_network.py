"""The client that fetches what a configuration names: which addresses it refuses, and how it ends whatever the server does."""

import gzip
import socket
import ssl
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from resources import network
from resources.errors import ConfigError, TransientError
from resources.network import RefusedUrlError, ResponseError, ResponseTooLargeError, SafeClient, check_url
from tests.loopback import Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[SafeClient]:
    with SafeClient(allow_private=True, ports=[server.port], maximum_bytes=100_000) as client:
        yield client


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.9.9.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0.0.0.0",
        "169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "224.0.0.1", "240.0.0.1",
        "255.255.255.255", "192.0.0.192", "198.18.0.1", "203.0.113.9",
        "[::1]", "[::]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]", "[2001:db8::1]",
        "[::ffff:127.0.0.1]", "[::ffff:a9fe:a9fe]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]", "[2002:a9fe:a9fe::1]", "[::ffff:0:7f00:1]",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(host: str) -> None:
    with pytest.raises(RefusedUrlError):
        check_url(f"http://{host}/")


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "017700000001", "127.0.0.1.", "1.2.3.0x4"]
)
def test_numbers_in_unusual_notations_are_refused_before_any_name_is_resolved(host: str) -> None:
    def resolve(host: str, port: int) -> list[str]:
        pytest.fail("resolved")

    for allow_private in (False, True):
        with pytest.raises(RefusedUrlError):
            check_url(f"http://{host}/", allow_private, resolve=resolve)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "169.254.170.23", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16",
     "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1", "0.0.0.0", "::", "224.0.0.251", "192.0.0.192"],
)  # fmt: skip
def test_metadata_and_reserved_addresses_are_refused_even_for_an_intranet(address: str) -> None:
    with pytest.raises(RefusedUrlError, match="never fetched"):
        check_url("http://intranet.example/", allow_private=True, resolve=lambda host, port: [address])


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "192.168.7.7", "fd12::1", "::1", "100.64.3.3"])
def test_private_addresses_are_reached_where_the_source_says_so(address: str) -> None:
    place = check_url("http://intranet.example/", allow_private=True, resolve=lambda host, port: [address])
    assert place.addresses == (address,)
    with pytest.raises(RefusedUrlError, match="allow_private"):
        check_url("http://intranet.example/", resolve=lambda host, port: [address])


def test_one_bad_address_among_good_ones_refuses_the_host() -> None:
    with pytest.raises(RefusedUrlError):
        check_url("http://two.example/", resolve=lambda host, port: ["93.184.215.14", "10.0.0.1"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://example.com/", "scheme"), ("file:///etc/passwd", "scheme"), ("gopher://example.com/", "scheme"),
        ("http://me:secret@example.com/", "credentials"), ("http://me@example.com/", "credentials"),
        ("http://example.com:22/", "port 22"), ("http://example.com:6379/", "port 6379"), ("http:///x", "no host"),
        ("http://exa mple.com/", "space"), ("http://a\\@b/", "backslash"), ("http://a\r\nb/", "control"),
        ("http://exa%6dple.com/", "%"), ("http://[::1", "not a URL"),
    ],
)  # fmt: skip
def test_urls_that_are_not_plain_are_refused_without_repeating_a_secret(url: str, message: str) -> None:
    with pytest.raises(RefusedUrlError, match=message) as caught:
        check_url(url, resolve=lambda host, port: ["93.184.215.14"])
    assert "secret" not in str(caught.value)


def test_other_schemes_and_users_are_a_matter_of_the_kind() -> None:
    place = check_url(
        "ssh://git@example.com:22/x.git",
        schemes=("ssh",),
        ports=[22],
        allow_user=True,
        resolve=lambda h, p: ["1.1.1.1"],
    )
    assert (place.host, place.port, place.addresses) == ("example.com", 22, ("1.1.1.1",))


def test_a_name_that_does_not_resolve_is_worth_another_try() -> None:
    def resolve(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(TransientError, match=r"nowhere\.example cannot be resolved"):
        check_url("http://nowhere.example/", resolve=resolve)


def test_a_resolver_that_hangs_does_not_hang_the_request() -> None:
    def resolve(host: str, port: int) -> list[str]:
        time.sleep(5)
        return []

    started = time.monotonic()
    with SafeClient(total_seconds=0.3, resolve=resolve) as client, pytest.raises(TransientError, match="in time"):
        client.get("http://slow.example/")
    assert time.monotonic() - started < 2


# --- against a real server


def test_a_page_is_fetched_with_its_own_host_name_and_nothing_of_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    server.answer("/a", b"hello", Set_Cookie="a=b", X_Robots_Tag="noindex")
    with SafeClient(allow_private=True, ports=[server.port], resolve=lambda h, p: ["127.0.0.1"]) as client:
        for _ in range(2):
            response = client.get(server.url("/a#part", "pages.example"))
    assert (response.status, response.content, response.headers["x-robots-tag"]) == (200, b"hello", "noindex")
    assert response.url == server.url("/a", "pages.example")
    sent = server.seen[-1][1]
    assert sent["host"] == f"pages.example:{server.port}"
    assert "cookie" not in sent
    assert "authorization" not in sent


def test_a_name_that_changes_its_address_after_the_check_is_not_followed(server: Server) -> None:
    """DNS rebinding: public at the first look, loopback at the second. The connection goes to what was checked."""
    answers = [["192.0.0.1"], ["127.0.0.1"]]
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    server.answer("/", b"inside")
    with SafeClient(ports=[server.port], resolve=resolve) as client:
        for _ in range(3):
            with pytest.raises(RefusedUrlError):
                client.get(server.url("/", "rebind.example"))
    assert server.seen == []


def test_the_name_is_resolved_once_for_a_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[object] = []
    connect = socket.create_connection
    monkeypatch.setattr(
        socket, "create_connection", lambda address, *rest, **more: (connected.append(address), connect(address, *rest, **more))[1]
    )  # fmt: skip
    asked: list[str] = []
    server.answer("/", b"x")
    with SafeClient(
        allow_private=True, ports=[server.port], resolve=lambda h, p: (asked.append(h), ["127.0.0.1"])[1]
    ) as client:
        client.get(server.url("/", "once.example"))
    assert asked == ["once.example"]
    assert connected == [("127.0.0.1", server.port)]


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "http://[fd00:ec2::254]/", "ftp://x/"])
def test_redirects_to_forbidden_places_are_refused(server: Server, client: SafeClient, target: str) -> None:
    server.answer("/go", status=302, Location=target)
    with pytest.raises(RefusedUrlError):
        client.get(server.url("/go"))


def test_a_redirect_from_a_public_name_to_a_private_one_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_PRIVATE", tuple(item for item in network._PRIVATE if item != "127.0.0.0/8"))
    server.answer("/go", status=301, Location="http://inside.example/")
    names = {"outside.example": ["127.0.0.1"], "inside.example": ["10.0.0.8"]}
    with SafeClient(ports=[server.port], resolve=lambda host, port: names[host]) as client:
        with pytest.raises(RefusedUrlError, match=r"inside\.example is at 10\.0\.0\.8"):
            client.get(server.url("/go", "outside.example"))


def test_redirects_are_counted_and_recorded(server: Server, client: SafeClient) -> None:
    server.answer("/loop", status=302, Location="/loop")
    with pytest.raises(ResponseError, match="more than 5 redirects"):
        client.get(server.url("/loop"))
    server.answer("/old", status=301, Location="../new?x=1")
    server.answer("/new?x=1", b"here")
    response = client.get(server.url("/old"))
    assert response.url.endswith("/new?x=1")
    assert [(hop.url, hop.status) for hop in response.redirects] == [(server.url("/old"), 301)]


def test_https_never_falls_back_to_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with SafeClient() as client:
        monkeypatch.setattr(
            client, "_once", lambda url, headers, limit: (302, {"location": "HTTP://example.com/"}, b"")
        )
        with pytest.raises(RefusedUrlError, match="from https to http"):
            client.get("https://example.com/")


def test_credentials_go_to_their_own_origin_alone(server: Server) -> None:
    server.answer("/go", status=302, Location=f"http://other.example:{server.port}/there")
    server.answer("/there", b"x")
    with SafeClient(
        allow_private=True, ports=[server.port], resolve=lambda h, p: ["127.0.0.1"], authorization="Bearer t",
        authorized_origins=[f"http://one.example:{server.port}"],
    ) as client:  # fmt: skip
        client.get(server.url("/go", "one.example"))
    assert ["authorization" in headers for _, headers in server.seen] == [True, False]


def test_every_hop_is_approved(server: Server, client: SafeClient) -> None:
    server.answer("/go", status=302, Location="/secret")

    def approve(url: str) -> None:
        if "secret" in url:
            raise LookupError(url)

    with pytest.raises(LookupError):
        client.get(server.url("/go"), approve=approve)
    assert [path for path, _ in server.seen] == ["/go"]


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", raw_deflate), ("x-gzip", gzip.compress),
        ("gzip", lambda data: gzip.compress(data[:10]) + gzip.compress(data[10:]) + b"\0" * 9),
    ],
)  # fmt: skip
def test_compressed_answers_are_read(
    server: Server, client: SafeClient, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    server.answer("/", pack(b"words and words " * 99), Content_Encoding=coding)
    assert client.get(server.url()).content == b"words and words " * 99


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: gzip.compress(data[:50_000]) * 4000])
def test_a_decompression_bomb_is_stopped_at_the_limit(
    server: Server, client: SafeClient, pack: Callable[[bytes], bytes]
) -> None:
    import tracemalloc

    bomb = pack(b"\0" * 200_000_000)
    server.answer("/", bomb, Content_Encoding="gzip")
    tracemalloc.start()
    with pytest.raises(ResponseTooLargeError):
        client.get(server.url())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000, "the limit is 100 kB: nothing near the 200 MB may be held"


def test_a_stream_that_yields_nothing_is_stopped_too(server: Server, client: SafeClient) -> None:
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    start = packer.compress(b"x") + packer.flush(zlib.Z_SYNC_FLUSH)
    server.answer("/", start + b"\0\0\0\xff\xff" * 400_000, Content_Encoding="gzip")
    with pytest.raises(ResponseTooLargeError):
        client.get(server.url())


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip"])
def test_encodings_that_were_not_asked_for_are_refused(server: Server, client: SafeClient, coding: str) -> None:
    server.answer("/", b"abc", Content_Encoding=coding)
    with pytest.raises(ResponseError, match="not asked for"):
        client.get(server.url())


def test_damaged_and_broken_off_answers_are_told_apart(server: Server, client: SafeClient) -> None:
    packed = gzip.compress(bytes(range(256)) * 99)
    server.answer("/damaged", packed[:20] + b"\xff\xff\xff" + packed[23:], Content_Encoding="gzip")
    server.answer("/short", packed[:-12], Content_Encoding="gzip")
    with pytest.raises(ResponseError, match="damaged"):
        client.get(server.url("/damaged"))
    with pytest.raises(TransientError, match="broke off"):
        client.get(server.url("/short"))


def test_a_large_answer_is_refused_by_its_stated_length_and_by_its_real_one(server: Server, client: SafeClient) -> None:
    server.answer("/stated", b"x" * 100_001)
    server.answer("/exact", b"x" * 100_000)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")

    server.pages["/endless"] = endless
    for path in ("/stated", "/endless"):
        with pytest.raises(ResponseTooLargeError):
            client.get(server.url(path))
    assert len(client.get(server.url("/exact")).content) == 100_000
    assert client.get(server.url("/stated"), maximum_bytes=200_000).status == 200


def test_a_server_that_drips_is_cut_off_by_the_total_deadline(server: Server) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    server.pages["/"] = drip
    started = time.monotonic()
    with SafeClient(allow_private=True, ports=[server.port], total_seconds=0.5, read_seconds=5) as client:
        with pytest.raises(TransientError, match="longer than allowed"):
            client.get(server.url())
    assert time.monotonic() - started < 2


def test_headers_that_drip_are_cut_off_too(server: Server) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        for character in b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 500:
            handler.wfile.write(bytes([character]))
            handler.wfile.flush()
            time.sleep(0.05)

    server.pages["/"] = drip
    started = time.monotonic()
    with SafeClient(allow_private=True, ports=[server.port], total_seconds=0.5) as client:
        with pytest.raises(TransientError):
            client.get(server.url())
    assert time.monotonic() - started < 2


def self_signed(folder: Path, name: str) -> tuple[Path, Path]:
    """A key and a certificate for a host name, as PEM files."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "key.pem", folder / "cert.pem"


def test_a_pinned_connection_still_proves_who_it_talks_to(server: Server, tmp_path: Path) -> None:
    """TLS is made out to the name in the URL, not to the address connected to."""
    key, certificate = self_signed(tmp_path, "pages.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    server.secure(context)
    server.answer("/", b"safe")

    def get(host: str, ca_file: Path | None) -> bytes:
        with SafeClient(
            allow_private=True,
            ports=[server.port],
            resolve=lambda h, p: ["127.0.0.1"],
            ca_file=str(ca_file) if ca_file else None,
        ) as client:
            return client.get(f"https://{host}:{server.port}/").content

    assert get("pages.example", certificate) == b"safe"
    assert names == ["pages.example"]
    for host, trusted in (("pages.example", None), ("other.example", certificate)):
        with pytest.raises(RefusedUrlError, match="certificate is not trusted"):
            get(host, trusted)
    with pytest.raises(ConfigError, match="PEM"):
        get("pages.example", key.with_name("missing.pem"))


def test_no_connection_is_worth_another_try() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with SafeClient(allow_private=True, ports=[port]) as client, pytest.raises(TransientError, match="ConnectError"):
        client.get(f"http://127.0.0.1:{port}/?token=secret")
