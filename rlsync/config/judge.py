"""The address and the secret of a judge."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from rlsync.errors import ConfigError
from rlsync.redact import redacted, secret_in


def check_judge_url(url: str) -> None:
    """Raises ConfigError if it is no address of a service, or holds a secret, which would be written down with it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"reward.judge_url={redacted(url)}: want the address of a service, http://HOST:PORT/PATH")
    if secret := secret_in(url):
        raise ConfigError(
            f"reward.judge_url={redacted(url)}: {secret} would be written to config.yaml, to wandb and into logs. Put "
            "the secret into an environment variable and name that in reward.judge_token_env: it is sent as "
            "'Authorization: Bearer'."
        )


def judge_token(name: str) -> str:
    """The secret in the environment variable `name`.

    Raises:
        ConfigError: it is not set, or cannot be sent. The message shows neither the secret nor the name, which may be
            the secret itself by mistake.
    """
    token = os.environ.get(name, "").strip()
    if not token:
        raise ConfigError(
            "reward.judge_token_env: no environment variable of that name is set (it is not shown here, in case it is "
            "the token itself). Name the variable that holds the token, for example reward.judge_token_env=JUDGE_TOKEN"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(
            f"reward.judge_token_env={name}: its value has blanks or characters that no HTTP header may have. Set it "
            "to the token and nothing else"
        )
    return token
