"""Configuration: the only reader of ``os.environ`` and of configuration files.

Order: argument > environment > the project's file (``unigpu.toml``, or ``[tool.unigpu]`` in ``pyproject.toml``) > the
user's file (``$XDG_CONFIG_HOME/unigpu/config.toml``) > for keys only, the vendor's own file (never written) > default.
`Settings.sources` says where each value came from; ``python -m unigpu config explain`` prints it.

The file::

    provider = "local"              # the default provider
    namespace = "team"              # committed, so that CI, backend and colleagues mean the same deployments
    [defaults]                      # spec fields for every deployment; also on_unsupported
    ttl = "8h"
    [deployments.summarize]         # a declared deployment: client.deploy("summarize")
    handler = "app.py:summarize"
    [deployments.summarize.on.local]   # what differs there
    workers = [0, 2]
    [driver_options.local]
    [profiles.ci]                   # provider, namespace, defaults and driver_options under another name
    [api_keys]                      # in the user's file only, which nobody else may be able to read
"""

from __future__ import annotations

from .load import load
from .settings import DEFAULT, Default, Key, Settings, key_variable, secret
from .state_dir import mocked

__all__ = ["DEFAULT", "Default", "Key", "Settings", "key_variable", "load", "mocked", "secret"]
