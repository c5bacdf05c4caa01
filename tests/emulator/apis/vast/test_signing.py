"""Signatures and certificates made with the standard library, checked by openssl where there is one."""

from __future__ import annotations

import base64
import json
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from unigpu.emulator.apis.vast.signing import is_signed, public_key, root_certificate, sign_certificate, sign_route

URL = "https://203.0.113.7:33526"


def openssl(*args: str, input: bytes | None = None) -> bytes:
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("there is no openssl here")
    done = subprocess.run([program, *args], input=input, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_a_signature_holds_for_its_address_only() -> None:
    signature = sign_route(URL)
    assert is_signed(URL, signature)
    assert not is_signed(URL + "0", signature)
    assert not is_signed(URL, signature[:-4] + "AAA=")
    for nothing in (None, 1, "", "***", base64.b64encode(b"short").decode()):
        assert not is_signed(URL, nothing)


def test_openssl_verifies_a_signature_with_the_served_key(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(public_key())
    (tmp_path / "signature").write_bytes(base64.b64decode(sign_route(URL)))
    text = json.dumps({"url": URL}, indent=4, sort_keys=True).encode()
    told = openssl(
        *("dgst", "-sha256", "-verify", str(tmp_path / "key.pem"), "-signature", str(tmp_path / "signature")),
        input=text,
    )
    assert b"Verified OK" in told


def test_openssl_verifies_a_worker_s_certificate_against_the_served_root(tmp_path: Path) -> None:
    key, request = tmp_path / "key", tmp_path / "csr"
    openssl(
        *("req", "-newkey", "rsa:2048", "-nodes", "-sha256", "-subj", "/C=US/ST=CA/CN=pyworker.vast.ai/"),
        *("-keyout", str(key), "-out", str(request)),
    )
    (tmp_path / "root.pem").write_text(root_certificate())
    (tmp_path / "worker.pem").write_text(sign_certificate(request.read_bytes(), "127.0.0.1"))
    told = openssl(
        "verify", "-CAfile", str(tmp_path / "root.pem"), "-verify_ip", "127.0.0.1", str(tmp_path / "worker.pem")
    )
    assert b"OK" in told
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "worker.pem", key)


@pytest.mark.parametrize(
    "request_", [b"", b"\x30\x03\x02\x01\x01", b"-----BEGIN X-----\n!!!\n", b"\x31\x00", b"\x30\x84"]
)
def test_what_is_no_signing_request_is_refused(request_: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        sign_certificate(request_, "127.0.0.1")


def test_the_root_can_be_trusted() -> None:
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=root_certificate())
