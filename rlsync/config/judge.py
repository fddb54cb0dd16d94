"""Checks of the address and the secret of a judge."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from rlsync.errors import ConfigError
from rlsync.redact import redacted, secret_in


def check_judge_url(url: str) -> None:
    """Raise ConfigError if the URL is malformed, or contains a secret, which would be written to files with it."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(
            f"reward.judge_url={redacted(url)} is not the address of a service. Give one as http://HOST:PORT/PATH"
        )
    if secret := secret_in(url):
        raise ConfigError(
            f"reward.judge_url={redacted(url)}: {secret} would be written to config.yaml, to wandb and to logs. Put "
            "the secret into an environment variable, and give the variable's name in reward.judge_token_env: the "
            "secret is sent as 'Authorization: Bearer'."
        )


def judge_token(name: str) -> str:
    """Return the secret in the environment variable `name`.

    Raises:
        ConfigError: The variable is not set, or its value cannot be sent. The message never shows the value. Where
            no such variable is set it does not show the name either, which may be the secret itself by mistake.
    """
    token = os.environ.get(name, "").strip()
    if not token:
        raise ConfigError(
            "reward.judge_token_env: no environment variable of that name is set (it is not shown here, in case it is "
            "the token itself). Name the variable that holds the token, for example reward.judge_token_env=JUDGE_TOKEN"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise ConfigError(
            f"reward.judge_token_env={name}: the variable's value has blanks or characters that no HTTP header may "
            "have. Set the variable to the token and nothing else"
        )
    return token
