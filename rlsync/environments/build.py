"""Make environments from the configuration."""

from __future__ import annotations

from collections.abc import Callable

from rlsync.config.environment import EnvironmentConfig, EnvironmentKind
from rlsync.environments.base import Environment
from rlsync.environments.calculator import Calculator
from rlsync.errors import ConfigError
from rlsync.user_code import check_call, load_callable

MakeEnvironment = Callable[[], Environment]


def environment_maker(config: EnvironmentConfig) -> MakeEnvironment | None:
    """Return a function that makes one environment for each conversation; None if there is no environment.

    Raises:
        ConfigError: The user's class cannot be loaded, is not an Environment, or does not accept environment.args.
    """
    match config.kind:
        case EnvironmentKind.none:
            return None
        case EnvironmentKind.calculator:
            return Calculator
        case EnvironmentKind.custom:
            wanted = "a class derived from rlsync.environments.base.Environment"
            made = load_callable(config.path, field="environment.path", signature=wanted)
            if not (isinstance(made, type) and issubclass(made, Environment)):
                raise ConfigError(f"environment.path={config.path!r} is {made!r}; it must be {wanted}")
            if missing := ", ".join(sorted(made.__abstractmethods__)):
                raise ConfigError(f"environment.path={config.path!r} is abstract: it lacks {missing}. Define it")
            field = f"environment.path={config.path!r} with environment.args={config.args}"
            check_call(made, (), config.args, field=field, fix="Correct environment.args")
            return lambda: made(**config.args)
