"""The emulator on loopback with TLS workers, which need a private ``/etc`` for their certificate."""

import sys
from functools import partial

from unigpu.emulator import serve
from unigpu.emulator.apis.vast.emulator import Quirks, VastEmulator


def emulator(name):
    return partial(VastEmulator, quirks=Quirks(worker_tls=True))


serve._emulator = emulator
sys.exit(serve.serve_main(["vast"], "127.0.0.1", 0))
