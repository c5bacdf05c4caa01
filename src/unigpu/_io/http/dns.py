"""From a host name to addresses, never longer than the deadline, and whether an address is a public one.

``getaddrinfo`` cannot be interrupted: it runs in a daemon thread that is waited for as long as the deadline allows.
Callers that ask for the same name at the same time share one thread.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import threading

import anyio
import anyio.from_thread
import anyio.lowlevel

__all__ = ["aresolve", "is_loopback", "is_public", "literal", "resolve"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def literal(host: str) -> str | None:
    """*host* as an address where it is written as one, else ``None``: then it must be looked up."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Whether *host* is written as an address of this machine's own."""
    address = literal(host)
    return address is not None and ipaddress.ip_address(address).is_loopback


def is_public(address: str) -> bool:
    """Whether *address* is a global unicast one, also inside the forms that carry an IPv4 address in IPv6."""
    try:
        ip: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip.teredo is not None:
            inner = ip.teredo[1]
        elif ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        elif int(ip) >> 32 == 0:  # the old "IPv4-compatible" form
            inner = ipaddress.IPv4Address(int(ip))
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback)


class _Lookup:
    """One ``getaddrinfo`` in a thread, for everybody who waits for that name now."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.addresses: list[str] = []
        self.error: OSError | None = None
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.events: dict[anyio.lowlevel.EventLoopToken, anyio.Event] = {}

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
        except OSError as exc:
            self.error = exc
        except UnicodeError:  # a label of more than 63 characters
            self.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        finally:
            with _lock:
                if _running.get((self.host, self.port)) is self:
                    del _running[self.host, self.port]
            with self.lock:
                self.done.set()
                events, self.events = self.events, {}
            for token, event in events.items():
                try:
                    anyio.from_thread.run_sync(event.set, token=token)
                except RuntimeError:
                    continue  # that loop ended meanwhile: nobody waits there

    def result(self) -> list[str]:
        if self.error is not None:
            raise socket.gaierror(*self.error.args)  # a new one: several callers raise it
        return self.addresses


_lock = threading.Lock()
_running: dict[tuple[str, int], _Lookup] = {}


def _forget_after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # a thread that held it does not exist in the child
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


def _lookup(host: str, port: int) -> _Lookup:
    with _lock:
        found = _running.get((host, port))
        if found is not None:
            return found
        new = _running[host, port] = _Lookup(host, port)
    threading.Thread(target=new.run, name=f"unigpu resolve {host}", daemon=True).start()
    return new


def resolve(host: str, port: int, timeout: float | None) -> list[str]:
    """The addresses of *host*, in the system's order of preference.

    Raises:
        TimeoutError: no answer within *timeout* seconds.
        OSError: there is no such name.
    """
    lookup = _lookup(host, port)
    if not lookup.done.wait(timeout):
        raise TimeoutError
    return lookup.result()


async def aresolve(host: str, port: int, timeout: float | None) -> list[str]:
    """As `resolve`, without blocking the loop."""
    lookup = _lookup(host, port)
    with lookup.lock:
        event = None
        if not lookup.done.is_set():
            event = lookup.events.setdefault(anyio.lowlevel.current_token(), anyio.Event())
    if event is not None:
        with anyio.fail_after(timeout):
            await event.wait()
    return lookup.result()
