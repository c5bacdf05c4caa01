"""The face on loopback with TLS workers, which need a private ``/etc`` for their certificate."""

import sys
from functools import partial

from unigpu.cloud import _standalone
from unigpu.cloud.faces.vast import Quirks, VastFace


def face(name):
    return partial(VastFace, quirks=Quirks(worker_tls=True))


_standalone._face = face
sys.exit(_standalone.serve_main(["vast"], "127.0.0.1", 0))
