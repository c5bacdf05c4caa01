"""The keys of this emulator: what signs its routes, and the root that its workers' certificates chain to.

RSA and the little of X.509 that is needed, with the standard library alone. Both private keys are printed here on
purpose: whoever reads them can sign for workers that believe an emulator on loopback, and for nobody else.

* A route is signed as RSA PKCS#1 v1.5 over SHA-256 of ``json.dumps({"url": url}, indent=4, sort_keys=True)``, in base64
  (vastai 1.9.1, ``serverless/server/lib/backend.py``, ``__check_signature``).
* A worker's certificate has the worker's address as its IP subject alternative name, and is signed on ``POST
  /api/v0/sign_cert/`` (https://github.com/vast-ai/pyworker, ``start_server.sh``). Vast's root lacks keyCertSign, and so
  does this one: clients must clear ``VERIFY_X509_STRICT`` (vastai 1.9.1, ``serverless/client/client.py``).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Final

_EXPONENT: Final = 65537
_SHA256_PREFIX: Final = bytes.fromhex("3031300d060960864801650304020105000420")
_OID_RSA: Final = bytes.fromhex("06092a864886f70d010101")
_OID_RSA_SHA256: Final = bytes.fromhex("06092a864886f70d01010b")
_OID_COMMON_NAME: Final = bytes.fromhex("0603550403")
_OID_BASIC_CONSTRAINTS: Final = bytes.fromhex("0603551d13")
_OID_ALTERNATIVE_NAME: Final = bytes.fromhex("0603551d11")
_NULL: Final = b"\x05\x00"
_FROM: Final = b"250101000000Z"
_UNTIL: Final = b"450101000000Z"


@dataclass(frozen=True, slots=True)
class _Key:
    n: int
    d: int = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """PKCS#1 v1.5 over SHA-256."""
        size = (self.n.bit_length() + 7) // 8
        digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
        padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        return pow(int.from_bytes(padded), self.d, self.n).to_bytes(size)

    def verify(self, message: bytes, signature: bytes) -> bool:
        size = (self.n.bit_length() + 7) // 8
        if len(signature) != size:
            return False
        digest = _SHA256_PREFIX + hashlib.sha256(message).digest()
        padded = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
        return pow(int.from_bytes(signature), _EXPONENT, self.n) == int.from_bytes(padded)

    def public(self) -> bytes:
        """The SubjectPublicKeyInfo, in DER."""
        key = _sequence(_integer(self.n), _integer(_EXPONENT))
        return _sequence(_sequence(_OID_RSA, _NULL), _tagged(0x03, b"\x00" + key))


def sign_route(url: str) -> str:
    """The signature of a route's answer."""
    return _signature(url)


def is_signed(url: object, signature: object) -> bool:
    """Whether a worker would believe this: only the address is covered (1.9.1; cost and reqnum are not)."""
    if not isinstance(url, str) or not isinstance(signature, str):
        return False
    try:
        return _ENGINE.verify(_signed_text(url), base64.b64decode(signature, validate=True))
    except ValueError:
        return False


@cache
def public_key() -> str:
    """What ``GET /pubkey/`` answers, as PEM."""
    return _pem("PUBLIC KEY", _ENGINE.public())


@cache
def root_certificate() -> str:
    """What ``GET /static/jvastai_root.cer`` answers, as PEM."""
    name = _name("unigpu small cloud: Vast face root")
    constraints = _extension(_OID_BASIC_CONSTRAINTS, _sequence(b"\x01\x01\xff"), critical=True)
    return _pem("CERTIFICATE", _certificate(1, name, name, _ROOT.public(), [constraints]))


def sign_certificate(request: bytes, address: str) -> str:
    """A certificate for the key of a signing request (PEM or DER), valid for an IP address.

    Raises:
        ValueError: it is no request, or no address.
    """
    der = _from_pem(request)
    try:
        info = next(_parts(next(_parts(der))[1]))[1]
        spki = list(_parts(info))[2]
        if der[:1] != b"\x30" or spki[0] != 0x30:
            raise ValueError("not a certificate signing request")
    except (StopIteration, IndexError):
        raise ValueError("not a certificate signing request") from None
    packed = ipaddress.ip_address(address).packed
    names = _extension(_OID_ALTERNATIVE_NAME, _sequence(_tagged(0x87, packed)))
    serial = int.from_bytes(hashlib.sha256(der).digest()[:8]) | 1
    issuer = _name("unigpu small cloud: Vast face root")
    return _pem("CERTIFICATE", _certificate(serial, issuer, _name(address), _tagged(*spki), [names]))


# -- inside


@cache
def _signature(url: str) -> str:
    return base64.b64encode(_ENGINE.sign(_signed_text(url))).decode()


def _signed_text(url: str) -> bytes:
    return json.dumps({"url": url}, indent=4, sort_keys=True).encode()


def _certificate(serial: int, issuer: bytes, subject: bytes, spki: bytes, extensions: list[bytes]) -> bytes:
    algorithm = _sequence(_OID_RSA_SHA256, _NULL)
    body = _sequence(
        _tagged(0xA0, _integer(2)),
        _integer(serial),
        algorithm,
        issuer,
        _sequence(_tagged(0x17, _FROM), _tagged(0x17, _UNTIL)),
        subject,
        spki,
        _tagged(0xA3, _sequence(*extensions)),
    )
    return _sequence(body, algorithm, _tagged(0x03, b"\x00" + _ROOT.sign(body)))


def _name(text: str) -> bytes:
    return _sequence(_tagged(0x31, _sequence(_OID_COMMON_NAME, _tagged(0x0C, text.encode()))))


def _extension(oid: bytes, value: bytes, *, critical: bool = False) -> bytes:
    return _sequence(oid, b"\x01\x01\xff" if critical else b"", _tagged(0x04, value))


def _sequence(*parts: bytes) -> bytes:
    return _tagged(0x30, b"".join(parts))


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1))


def _tagged(tag: int, value: bytes) -> bytes:
    size = len(value)
    if size < 0x80:
        return bytes((tag, size)) + value
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + value


def _parts(der: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of each element."""
    at = 0
    while at < len(der):
        tag, size = der[at], der[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(der[at : at + count])
            at += count
        if at + size > len(der):
            raise ValueError("not DER")
        yield tag, der[at : at + size]
        at += size


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n"


def _from_pem(data: bytes) -> bytes:
    if not data.lstrip().startswith(b"-----BEGIN"):
        return data
    lines = [line.strip() for line in data.splitlines() if line.strip() and not line.startswith(b"-----")]
    return base64.b64decode(b"".join(lines), validate=True)


def _number(text: str) -> int:
    return int(text, 16)


_ENGINE: Final = _Key(
    n=_number(
        "bb4ac0cccfa2f09ed6a44d7c5a99d5bfa0b9949378a1c252581d1cbbb16629ed95b0c38c3d39cb8252584f5a3cbbf4959164"
        "9de6bc4561409897b55e204b9a6f937583bb4f0a10b97009acb767d973c4cb017f3543ddd76851e444924cedb645ce065426"
        "ef3cdc3f1e6f79dd62a6402e6b2539a518794921d424f037e4ffb79989806def9f47e197179fb00f07d394d7bb9edac825f8"
        "4d5774880c622075ec2b9c4070ec98333004b8bcdae57982770a4517558ff0b565323680a0aa06e839105a63fce566851b2d"
        "5586e1c26422856e264ece8105afe9c520362ab58fc9071d4d0acc516dee863fbf332eb7360df8a2c7a850937c9deef538d9"
        "6a834fb336ad"
    ),
    d=_number(
        "20b40b5957f24028c41af96abad93cc112bc04ed0135e19c0645c31425044d52ee7de88f4ecb8e3509d2e0bc45799e5a1582"
        "a7adb7f73765939f7dec5b20486dae266963a608006698e11f9700dbb002cf5dca0c0f77279b501d5739e293e96d63eda7f9"
        "0a722a951ce7e3341c7b221ed8d7adaa9dcce3cfb3dee551253bdf9f73a8527541a1eb4ed5ffdd218465919ae43824c5fe16"
        "02a06f00d1ffec2656ab9e58ba461a77386c08f5bcd9d6f04073f0d87f991b637ca477c870d1ed4a4975697378910fdc2667"
        "ecd281724ddb1276496a469abe12b8c737484d0bb1fa73523aab68f43681c94333d6a4d193100fe39aac15e656d8d45b0a6f"
        "94ffbdbdd951"
    ),
)
_ROOT: Final = _Key(
    n=_number(
        "cb488974a1b77574562274c59c3f70cf75ed3d1d57088ed765ff749af79229b57ca441b0021c11881bea940ae643b5743069"
        "f0a5c035c5575244396bedeb9611e8b4101b3d012ff5746e12bab3fb2766888fca35ab80436a31aaa10731cb2ddb7bbe2715"
        "9167ed2878b867d8e72a0fd96123acb1a150fca7c9c191d309acbad93e777002bf203e4900fd1e4d81e0209f0c042ecd3866"
        "df922d90cbb992681f4886dc1d668db93425cdbd32fb7752eba19457581671ad2c73f0fae32d9af6e933a871dc76293283d8"
        "18c4eabc6b0a4c32e39e1d8e40b1be133abb0fd7d562eed05e2b53f81cd478cba7accd01de082426cf1e6685dba4e0c4778c"
        "a77ce2ad2167"
    ),
    d=_number(
        "5246ee27902abe75d34507e95187d5e38a31f6d9f0b78c84ff0a098a8d6891cc1c8228fa11a885aa06ce8793efc5f8e3e992"
        "7f6dbee1a49966b9295a9746128bf6192729b723cb62f7f8734930fe96e067a6772c08d995af9e2197225fd382208331a005"
        "1940ac9b045d72deb6156eabc7a6d64760e8f411ff5582ed9d4d55a44e6078c7c75605e94645a20197a7e1361bfc14eb9510"
        "30f1ef4c18bf9d62ac71220093f78c211df1b83a960b4687cf285fc9a63a5305a45a296bb3451019bc5090a788923be98e1e"
        "a0dac0b4b63df75b666a42820d097eb70d47303a2a8d4d05a94a4ebac2c54edf7f50a436ec1767b2585103963071b150bb9b"
        "d0de00d02239"
    ),
)
