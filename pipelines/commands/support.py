"""Support: what the commands share.

Belongs here: settings, names and callers as the command line gives them. Does not belong here: any command.
"""

from typing import Any

import click


def open_settings() -> Any:
    """The settings of this process."""
    from pipelines.settings import load_settings

    return load_settings()


def open_platform() -> Any:
    """The platform on them; nothing is opened yet."""
    return open_settings().platform()


def open_config(settings: Any) -> Any:
    """The configuration of these settings."""
    from resources.config import load_config

    return load_config(settings.data_dir)


def caller_labels(config: Any, named: tuple[str, ...], public: bool) -> tuple[str, ...] | None:
    """What the caller may see: None without restriction, as operators and evaluation search."""
    if public and named:
        raise click.UsageError("give either --public or --label")
    known_names("label", named, sorted({source.label for source in config.sources.values() if source.label}))
    return named or (() if public else None)


def user_name() -> str:
    """Who is to be recorded as having done it."""
    import getpass

    return f"{getpass.getuser()} (cli)"


def known_names(what: str, names: tuple[str, ...], allowed: list[str]) -> None:
    """Refuse unknown names, naming the nearest."""
    import difflib

    for name in names:
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise click.UsageError(f"there is no {what} {name!r}; there are: {', '.join(allowed)}.{hint}")
