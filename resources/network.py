"""The network: one HTTP client for everything a configuration file, or a page it leads to, can make this project fetch.

Belongs here: which addresses may be reached, and a GET that stays inside that, however the server answers.
Does not belong here: what is fetched and why (resources/sources/), and calls to model endpoints (models.py), whose URLs
come from the environment.

A host name is resolved once for a connection; every address it has is checked, and the connection goes to exactly a
checked address, so a name that changes its mind between check and use gains nothing. Redirects are followed here, one
by one, under the same rules. Nothing is taken from the environment: no proxy, no netrc, no cookie.
"""

import ipaddress
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from resources.errors import ConfigError, PermanentError, TransientError

if TYPE_CHECKING:
    import httpx

#: Ports that may be reached without being named in a configuration.
PORTS = frozenset({80, 443, 8080, 8443})
_DEFAULT_PORTS = {"http": 80, "https": 443}
_REDIRECTS = {301, 302, 303, 307, 308}
#: Compressed bytes a response may have beyond its limit: a stream of empty blocks yields nothing and never ends.
_RAW_SLACK = 1_000_000
_USER_AGENT = "genaiops/1 (document refresh)"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
#: Addresses of a host name, as text.
Resolver = Callable[[str, int], list[str]]

#: Reached only where a source says ``allow_private``: RFC 1918, RFC 6598, loopback, RFC 4193.
_PRIVATE = ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
#: Never reached. The IANA special-purpose registries: this network, link-local, documentation, benchmarking, multicast,
#: reserved, discard; and, public or private, where clouds answer a machine's questions about its own credentials.
_NEVER = (
    "0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "::/128", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fe80::/10",
    "fec0::/10", "ff00::/8",
    "100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::254/128",
)  # fmt: skip
#: IPv6 forms that carry an IPv4 address: (network, bits to the right of it).
_CARRIERS = (("::ffff:0:0/96", 0), ("::/96", 0), ("::ffff:0:0:0/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))


class RefusedUrlError(ConfigError):
    """A URL, or the address behind it, is not one that may be fetched."""


class ResponseError(PermanentError):
    """The server answered with something that cannot be used; asking again would not help."""


class ResponseTooLargeError(ResponseError):
    """The response, decompressed, is larger than allowed; reading stopped there."""


@dataclass(frozen=True)
class Place:
    """Where a checked URL leads: every address of ``host``, each allowed."""

    host: str
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Redirect:
    """One hop: what was asked for, and the status that led on."""

    url: str
    status: int


@dataclass(frozen=True)
class Response:
    """What a server sent.

    Attributes:
        url: of the last hop.
        status: HTTP status of the last hop.
        headers: of the last hop, names in lower case; repeated ones are joined by a comma.
        content: the body, decompressed.
        redirects: the hops before the last.
    """

    url: str
    status: int
    headers: Mapping[str, str]
    content: bytes = field(repr=False)
    redirects: tuple[Redirect, ...] = ()


def system_resolver(host: str, port: int) -> list[str]:
    """Addresses of a host name as the operating system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(item[4][0]) for item in found))


def shown(url: str) -> str:
    """A URL as it may stand in a message: without credentials, query and fragment, which may hold a secret."""
    return re.sub(r"//[^/?#]*@", "//", url).split("?", 1)[0].split("#", 1)[0][:300]


def check_url(
    url: str,
    allow_private: bool = False,
    *,
    schemes: Collection[str] = ("http", "https"),
    ports: Collection[int] = (),
    allow_user: bool = False,
    resolve: Resolver | None = None,
) -> Place:
    """Check a URL and every address of its host; for kinds of sources that bring a client of their own.

    A client that resolves the name again can be sent elsewhere then: hand it one of the addresses where it takes one
    (git: ``http.curloptResolve``).

    Args:
        schemes: allowed ones.
        ports: allowed ones beside ``PORTS``.
        allow_user: a user name may be part of the URL (``ssh://git@host``); a password never may.

    Raises:
        RefusedUrlError: it may not be fetched.
        TransientError: the host's name cannot be resolved just now.
    """
    parsed = parse_url(url, schemes=schemes, ports=ports, allow_user=allow_user)
    port = parsed.port or _DEFAULT_PORTS.get(parsed.scheme, 0)
    return check_host(parsed.host, port, allow_private, resolve=resolve)


def check_host(
    host: str, port: int, allow_private: bool = False, *, resolve: Resolver | None = None, seconds: float = 20.0
) -> Place:
    """Resolve a host and check every address of it; raises like ``check_url``."""
    _refuse_odd_host(host)
    literal = _literal(host)
    found = [str(literal)] if literal else _resolved(resolve or system_resolver, host, port, seconds)
    for address in found:
        refuse_address(address, host, allow_private)
    return Place(host, port, tuple(found))


def parse_url(
    url: str,
    *,
    schemes: Collection[str] = ("http", "https"),
    ports: Collection[int] = (),
    allow_user: bool = False,
) -> "httpx.URL":
    """Read a URL and check all that can be checked without the network; raises ``RefusedUrlError``."""
    import httpx

    if any(character <= " " or character in "\x7f\\" for character in url):
        raise RefusedUrlError(f"the URL {shown(url)!r} holds a space, a control character or a backslash")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise RefusedUrlError(f"{shown(url)!r} is not a URL") from error
    if parsed.scheme not in schemes:
        raise RefusedUrlError(f"{shown(url)!r}: the scheme must be one of {', '.join(sorted(schemes))}")
    if parsed.password or (parsed.userinfo and not allow_user):
        raise RefusedUrlError(f"{shown(url)!r} holds credentials; take them from the environment instead")
    if not parsed.raw_host:
        raise RefusedUrlError(f"{shown(url)!r} names no host")
    _refuse_odd_host(parsed.raw_host.decode("ascii", "replace"))
    allowed = PORTS | set(ports)
    if parsed.port is not None and parsed.port not in allowed:
        names = ", ".join(map(str, sorted(allowed)))
        raise RefusedUrlError(f"{shown(url)!r}: port {parsed.port} is not among {names}; name it in `ports`")
    return parsed


def refuse_address(address: str, host: str, allow_private: bool) -> None:
    """Raise ``RefusedUrlError`` unless connecting to ``address`` is allowed."""
    try:
        plain = ipaddress.ip_address(address.split("%")[0])
    except ValueError as error:
        raise RefusedUrlError(f"{host} has an address that cannot be read") from error
    for form in (plain, *_carried(plain)):
        if _within(form, _NEVER):
            raise RefusedUrlError(
                f"{host} is at {address}: link-local, cloud metadata, multicast and reserved addresses are never fetched"
            )
        if _within(form, _PRIVATE) and not allow_private:
            raise RefusedUrlError(
                f"{host} is at {address}, a private address; set `allow_private: true` where that is meant"
            )


def _refuse_odd_host(host: str) -> None:
    """Hosts that look like numbers but are not plain addresses: 0x7f.1, 2130706433 and 0177.0.0.1 all mean 127.0.0.1."""
    if "%" in host:
        raise RefusedUrlError(f"the host {host!r} holds a %")
    last = host.rstrip(".").rsplit(".", 1)[-1]
    if ":" not in host and re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", last) and _literal(host) is None:
        raise RefusedUrlError(f"the host {host!r} is a number in an unusual notation; write it as 192.0.2.1")


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


def _within(address: Address, networks: tuple[str, ...]) -> bool:
    return any(address.version == network.version and address in network for network in _networks(networks))


@cache
def _networks(networks: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(network) for network in networks]


def _carried(address: Address) -> Iterable[Address]:
    """IPv4 addresses inside an IPv6 one: mapped, compatible, translated, NAT64 and 6to4. ``::1`` is not one."""
    if isinstance(address, ipaddress.IPv4Address) or int(address) < 2:
        return
    for network, shift in _CARRIERS:
        if _within(address, (network,)):
            yield ipaddress.IPv4Address((int(address) >> shift) & 0xFFFF_FFFF)


def _resolved(resolve: Resolver, host: str, port: int, seconds: float) -> list[str]:
    """Resolve in a thread that may be left behind: the system's resolver takes no time limit."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append(resolve(host, port))
        except (OSError, UnicodeError) as error:
            outcome.append(error)

    thread = threading.Thread(target=work, daemon=True, name="resolve")
    thread.start()
    thread.join(max(seconds, 0.001))
    if not outcome:
        raise TransientError(f"the name {host} was not resolved in time")
    if isinstance(outcome[0], Exception) or not outcome[0]:
        raise TransientError(f"the name {host} cannot be resolved; is it spelt right, and is there a network?")
    return outcome[0]


# --- client -----------------------------------------------------------------------------------------------


class SafeClient:
    """Fetches URLs inside the rules of this module; safe to use from several threads.

    Args:
        allow_private: private and loopback addresses may be reached; metadata, link-local and reserved ones never.
        ports: allowed ones beside ``PORTS``.
        maximum_bytes: of a decompressed response.
        connect_seconds: for one connection.
        read_seconds: between two pieces of a response.
        total_seconds: for one request with all its redirects, name resolution included.
        authorization: value of the header of that name, sent to ``authorized_origins`` alone.
        authorized_origins: ``scheme://host:port``.
        ca_file: certificates trusted beside the usual ones, PEM.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        ports: Collection[int] = (),
        user_agent: str = _USER_AGENT,
        maximum_bytes: int = 50_000_000,
        maximum_redirects: int = 5,
        connect_seconds: float = 10.0,
        read_seconds: float = 30.0,
        total_seconds: float = 120.0,
        connections: int = 16,
        authorization: str | None = None,
        authorized_origins: Collection[str] = (),
        ca_file: str | None = None,
        resolve: Resolver | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._ports = frozenset(ports)
        self._user_agent = user_agent
        self._maximum_bytes = maximum_bytes
        self._maximum_redirects = maximum_redirects
        self._read_seconds = read_seconds
        self._connect_seconds = connect_seconds
        self._total_seconds = total_seconds
        self._authorization = authorization
        self._authorized_origins = frozenset(authorized_origins)
        self._deadline = _Deadline()
        self._pool = _pool(self._place, self._deadline, connections, ca_file)
        self._resolve = resolve

    def close(self) -> None:
        """Close every connection."""
        self._pool.close()

    def __enter__(self) -> "SafeClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def get(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        maximum_bytes: int | None = None,
        approve: Callable[[str], None] | None = None,
    ) -> Response:
        """GET a URL, following redirects.

        Args:
            approve: called with every URL before it is asked for, the first included; raises to stop.

        Returns:
            The last answer, whatever its status. Only a 200 has its body read.

        Raises:
            RefusedUrlError: the URL, or one it leads to, may not be fetched.
            ResponseTooLargeError: it is larger than allowed.
            ResponseError: endless redirects, or a body that cannot be decompressed.
            TransientError: no connection, no answer in time, or an answer that broke off.
        """
        self._deadline.at = time.monotonic() + self._total_seconds
        hops: list[Redirect] = []
        while True:
            parsed = parse_url(url, ports=self._ports).copy_with(fragment=None)
            url = str(parsed)
            if approve:
                approve(url)
            status, answered, content = self._once(parsed, headers or {}, maximum_bytes or self._maximum_bytes)
            location = answered.get("location")
            if status not in _REDIRECTS or not location:
                return Response(url, status, answered, content, tuple(hops))
            hops.append(Redirect(url, status))
            following = urljoin(url, location.strip().replace(" ", "%20"))
            if url.startswith("https:") and following.lower().startswith("http:"):
                raise RefusedUrlError(f"{shown(url)} redirects from https to http")
            if len(hops) > self._maximum_redirects:
                raise ResponseError(f"{shown(hops[0].url)}: more than {self._maximum_redirects} redirects")
            url = following

    def _once(self, url: "httpx.URL", headers: Mapping[str, str], limit: int) -> tuple[int, dict[str, str], bytes]:
        import httpcore

        sent = {
            "Host": url.netloc.decode("ascii"),
            "User-Agent": self._user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "gzip, deflate",
            **headers,
        }
        if self._authorization and origin_of(url) in self._authorized_origins:
            sent["Authorization"] = self._authorization
        request = httpcore.Request(
            "GET",
            httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=[(name.encode("ascii"), value.encode("latin-1")) for name, value in sent.items()],
            extensions={
                "timeout": {
                    "connect": self._connect_seconds,
                    "read": self._read_seconds,
                    "write": self._read_seconds,
                    "pool": self._total_seconds,
                }
            },
        )
        try:
            response = self._pool.handle_request(request)
            try:
                answered: dict[str, str] = {}
                for name, value in response.headers:
                    key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                    answered[key] = f"{answered[key]}, {text}" if key in answered else text
                content = _body(response.iter_stream(), answered, limit, url) if response.status == 200 else b""
            finally:
                response.close()
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise _failure(url, error, self._deadline.left() <= 0) from error
        return response.status, answered, content

    def _place(self, host: str, port: int) -> Place:
        """Where to connect to: called for every new connection, in the thread that asked for it."""
        return check_host(host, port, self._allow_private, resolve=self._resolve, seconds=self._deadline.left())


def origin_of(url: "httpx.URL | str") -> str:
    """``scheme://host:port`` of a URL."""
    import httpx

    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.raw_host.decode('ascii')}:{parsed.port or _DEFAULT_PORTS.get(parsed.scheme, 0)}"


class _Deadline(threading.local):
    """When the request of this thread must be over, on the monotonic clock."""

    at: float = float("inf")

    def left(self) -> float:
        return self.at - time.monotonic()


def _pool(place: Callable[[str, int], Place], deadline: _Deadline, connections: int, ca_file: str | None) -> Any:
    """A connection pool whose connections go where ``place`` says and end with the deadline."""
    import httpcore
    import httpx

    class Stream(httpcore.NetworkStream):
        def __init__(self, inner: httpcore.NetworkStream) -> None:
            self._inner = inner

        def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
            return self._inner.read(max_bytes, _clamped(timeout, deadline, httpcore.ReadTimeout))

        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            self._inner.write(buffer, _clamped(timeout, deadline, httpcore.WriteTimeout))

        def close(self) -> None:
            self._inner.close()

        def start_tls(
            self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
        ) -> "Stream":
            limit = _clamped(timeout, deadline, httpcore.ConnectTimeout)
            return Stream(self._inner.start_tls(ssl_context, server_hostname, limit))

        def get_extra_info(self, info: str) -> Any:
            return self._inner.get_extra_info(info)

    class Backend(httpcore.NetworkBackend):
        def __init__(self) -> None:
            self._inner = httpcore.SyncBackend()

        def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[Any] | None = None,
        ) -> httpcore.NetworkStream:
            last: Exception | None = None
            for address in place(host, port).addresses:  # never the name: it could be resolved to something else
                try:
                    limit = _clamped(timeout, deadline, httpcore.ConnectTimeout)
                    return Stream(self._inner.connect_tcp(address, port, limit, local_address, socket_options))
                except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                    last = error
            raise last or httpcore.ConnectError("no address")

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds)

    context = httpx.create_ssl_context(trust_env=False)
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:
            raise ConfigError(f"ca_file {ca_file!r} cannot be read as PEM certificates") from error
    return httpcore.ConnectionPool(
        ssl_context=context,
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=15.0,
        network_backend=Backend(),
    )


def _clamped(timeout: float | None, deadline: _Deadline, late: type[Exception]) -> float:
    left = deadline.left()
    if left <= 0:
        raise late("the time for this request is over")
    return min(left, timeout if timeout is not None else left, 86_400.0)


def _failure(url: "httpx.URL", error: Exception, late: bool) -> Exception:
    cause: BaseException | None = error
    while cause is not None:
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return RefusedUrlError(
                f"{shown(str(url))}: the server's certificate is not trusted; name its authority in `ca_file`"
            )
        cause = cause.__cause__ or cause.__context__
    what = "took longer than allowed in all" if late else type(error).__name__
    return TransientError(f"{shown(str(url))} could not be fetched: {what}")


def _body(pieces: Iterable[bytes], headers: Mapping[str, str], limit: int, url: "httpx.URL") -> bytes:
    """Read and decompress a body, never holding more than ``limit`` bytes and one piece."""
    coding = headers.get("content-encoding", "identity").strip().lower() or "identity"
    inflate = _Inflate(coding, url) if coding != "identity" else None
    stated = headers.get("content-length", "")
    if inflate is None and stated.isdigit() and int(stated) > limit:
        raise ResponseTooLargeError(f"{shown(str(url))} has {int(stated):,} bytes, allowed are {limit:,}")
    content = bytearray()
    received = 0
    for piece in pieces:
        received += len(piece)
        if received > limit + _RAW_SLACK:
            raise ResponseTooLargeError(f"{shown(str(url))} has more than {limit:,} bytes")
        content += inflate.feed(piece, limit + 1 - len(content)) if inflate else piece
        if len(content) > limit:
            raise ResponseTooLargeError(f"{shown(str(url))} has more than the {limit:,} bytes allowed")
    if inflate and received and not inflate.complete:
        raise TransientError(f"{shown(str(url))}: the compressed answer broke off")
    return bytes(content)


class _Inflate:
    """gzip or deflate, with a limit on what comes out; httpx's own decoders have none.

    Nothing else is asked for: a brotli decoder without a limit turns a kilobyte into gigabytes at one call.
    """

    def __init__(self, coding: str, url: "httpx.URL") -> None:
        if coding not in ("gzip", "x-gzip", "deflate"):
            raise ResponseError(f"{shown(str(url))}: encoded in a way that was not asked for")
        self._url = url
        self._gzip = coding != "deflate"
        self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16 if self._gzip else zlib.MAX_WBITS)
        self._begun = False

    @property
    def complete(self) -> bool:
        return self._decoder.eof

    def feed(self, data: bytes, room: int) -> bytes:
        """Decompress, returning at most ``room`` bytes; a caller that gets so many stops there."""
        out = bytearray()
        while data and len(out) < room:
            if self._decoder.eof:
                if not self._gzip or not data.startswith(b"\x1f"):  # padding after the last member
                    break
                self._decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
            try:
                out += self._decoder.decompress(data, room - len(out))
            except zlib.error as error:
                if self._gzip or self._begun:
                    raise ResponseError(f"{shown(str(self._url))}: the compressed answer is damaged") from error
                self._decoder = zlib.decompressobj(-zlib.MAX_WBITS)  # deflate without its header, as some servers send
                self._begun = True
                continue
            self._begun = True
            data = self._decoder.unused_data if self._decoder.eof else self._decoder.unconsumed_tail
        return bytes(out)
