"""``metatext push``."""

from __future__ import annotations

from ..command_settings import PushData, Settings
from ..hub import push_folder
from ..settings import ConfigError
from .common import log


def main(settings: Settings) -> None:
    """A saved head or classifier -> a repo on the Hub."""
    log()
    data = settings[PushData]
    if data.repo_id is None:
        raise ConfigError("repo_id is missing: metatext push FOLDER OWNER/NAME")
    commit = push_folder(
        data.model,
        data.repo_id,
        private=data.private or None,
        revision=data.revision,
        create_pr=data.create_pr,
        commit_message=data.commit_message,
        metrics=data.metrics,
        datasets=data.datasets,
        license=data.license,
    )
    print(f"{data.model} -> {commit.pr_url or commit.commit_url}")
