"""From the environment's config to what makes one for each conversation."""

from __future__ import annotations

from collections.abc import Callable

from rlsync.config.environment import EnvironmentConfig, EnvironmentKind
from rlsync.environments.base import Environment
from rlsync.environments.calculator import Calculator
from rlsync.errors import ConfigError
from rlsync.user_code import check_call, load_callable

MakeEnvironment = Callable[[], Environment]


def environment_maker(config: EnvironmentConfig) -> MakeEnvironment | None:
    """None where a response is one turn.

    Raises:
        ConfigError: the user's class cannot be loaded, is no Environment, or cannot be made with these arguments.
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
                raise ConfigError(f"environment.path={config.path!r} is {made!r}; want {wanted}")
            if missing := ", ".join(sorted(made.__abstractmethods__)):
                raise ConfigError(f"environment.path={config.path!r} is abstract: it lacks {missing}. Define it there")
            field = f"environment.path={config.path!r} with environment.args={config.args}"
            check_call(made, (), config.args, field=field, fix="Correct environment.args")
            return lambda: made(**config.args)
