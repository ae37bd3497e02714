"""Folder <-> Hub: what was saved is pushed in one commit, and loaded by the id of a repo.

Of a repo nothing but config.json and model.safetensors is ever downloaded: no code, no pickle.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .card import make_card, reports_of
from .hub_errors import HubError, asking
from .loading import Access
from .run_folder import CURVE, METRICS, read_metrics
from .settings import ConfigError, nearest
from .storage import (
    CONFIG,
    WEIGHTS,
    ContentError,
    StorageError,
    read_config,
    read_folder,
    read_json,
    write_folder,
    write_json,
    write_text,
)

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

logger = logging.getLogger(__name__)

CARD = "README.md"
CONTENTS = ("head", "adapted")
RELEASED = ("metatext-minilm-general", "metatext-minilm-intent")
"""Heads that come with metatext, by the names that load them."""


class Savable(Protocol):
    """What can be pushed: `MetaModel`, `AdaptedModel`."""

    def save_pretrained(self, folder: str | Path) -> None: ...


def read_pretrained(
    source: str | Path, content: str, revision: str | None, access: Access
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """config.json, tensors, and how messages call them, of a folder, or where there is none of that name, of a repo on the Hub.

    Args:
        source: a folder, a name in `RELEASED`, or the id of a repo, "owner/name".
        content: what it must hold, "head" or "adapted".
        revision: branch, tag or commit of the repo.
        access: how the Hub is asked.

    Raises:
        StorageError: see `storage.read_folder`.
        HubError: the repo cannot be had.
        ConfigError: a revision of a folder.
    """
    if not Path(source).exists() and source in RELEASED:
        source = released(source)
    elif not Path(source).exists() and str(source).startswith("metatext-minilm"):
        raise HubError(f"{source} is no head that comes with metatext{nearest(str(source), RELEASED)}")
    if Path(source).exists() or not _is_repo_id(source):
        if revision is not None and Path(source).exists():
            raise ConfigError(f"revision: {source} lies here, only a repo on the Hub has revisions; got {revision!r}")
        return *read_folder(source, content), str(source)
    where = source if revision is None else f"{source}@{revision}"
    for again in (False, True):
        folder = _download(source, revision, CONFIG, access, again)
        if not (folder / CONFIG).is_file():
            raise StorageError(f"{where}/{CONFIG} is missing: metatext saved nothing there")
        try:
            read_config(folder, content)  # before the weights, which of another library's repo may be many gigabytes
            folder = _download(source, folder.name, WEIGHTS, access, again)  # the folder's name is the commit: no mixed pair
            return *read_folder(folder, content), where
        except StorageError as error:
            # the copy in the cache may be damaged; what holds something else is not
            if again or _is_offline(access) or isinstance(error, ContentError):
                raise type(error)(str(error).replace(str(folder), where)) from None
    raise AssertionError("the second pass returns or raises")


def released(name: str) -> Path:
    """The folder of a head in `RELEASED`: an installed wheel holds it inside the package, a clone in model_cards/."""
    package = Path(__file__).parent
    inside = package / "released" / name
    return inside if inside.is_dir() else package.parent / "model_cards" / name


def push_folder(
    source: str | Path | Savable,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | bool | None = None,
    commit_message: str | None = None,
    metrics: Mapping[str, Any] | str | Path | None = None,
    datasets: Sequence[str] = (),
    license: str = "apache-2.0",
) -> CommitInfo:
    """Push a head or adapted classifier in one commit: config.json, model.safetensors, a card, and where there are any, metrics.json and
    learning_curve.png. The method ``push_to_hub`` of `MetaModel` and `AdaptedModel`.

    Args:
        source: a folder that ``save_pretrained`` wrote, or a model, which is saved first. A README.md in the folder is the card; without one it is
            written from the config and the metrics.
        repo_id: "owner/name", or a name of one's own; the repo is made where there is none.
        private: a repo that is made is private; None: as the owner's settings say.
        revision: branch to push to, made from the main branch where there is none.
        create_pr: open a pull request against the main branch instead.
        token: a token that may write; None: the one that is stored.
        commit_message: None: "Push with metatext".
        metrics: the figures for the card, see `card.reports_of`, or a JSON file of them; None: metrics.json of the folder, if there is one of
            these weights.
        datasets: Hub ids of what it was trained on, for the card.
        license: the Hub's name of its licence, for the card.

    Returns:
        The commit: a str, its URL, with ``oid``, and of a pull request ``pr_url`` and ``pr_revision``. Where nothing differs from what is
        there, nothing is pushed or opened, and it is the last commit.

    Raises:
        StorageError: the folder or the metrics cannot be read.
        HubError: the Hub does not take it; ``private`` was asked of a public repo; the encoder is a folder, which nobody else has.
        ConfigError: a revision and a pull request at once.
    """
    if create_pr and revision is not None:
        raise ConfigError(f"create_pr: a pull request is opened against the main branch, got the revision {revision!r} as well")
    with tempfile.TemporaryDirectory() as saved, tempfile.TemporaryDirectory() as made:
        if isinstance(source, (str, Path)):
            folder = Path(source)
        else:
            folder = Path(saved)
            source.save_pretrained(folder)
        staged = Path(made)
        config, examples = _stage(folder, staged)
        own = read_metrics(folder) if metrics is None else None
        stale = metrics is None and own is None and (folder / METRICS).is_file()
        if stale:
            logger.warning("%s: metrics.json and the curve are of other weights than lie there; they are left out", folder)
        figures = _figures(own if metrics is None else metrics)
        if figures is not None:
            write_json(staged / METRICS, figures)
        if (folder / CURVE).is_file() and not stale:
            shutil.copyfile(folder / CURVE, staged / CURVE)
        by_hand = (folder / CARD).is_file()
        if not by_hand:
            reports_of(figures or {})  # what is wrong with them shows before a repo is made
        with asking(f"could not push to {repo_id}", token):
            from huggingface_hub import HfApi

            api = HfApi(token=token, library_name="metatext")
            repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if private and not api.model_info(repo).private:
                raise HubError(f"{repo} is a public repo; make it private in its settings, or push to another one")
            if revision is not None and not revision.startswith("refs/"):
                api.create_branch(repo, branch=revision, exist_ok=True)
            if by_hand:
                shutil.copyfile(folder / CARD, staged / CARD)
            else:
                branch = None if revision == "main" else revision
                card = make_card(
                    config,
                    repo,
                    revision=branch,
                    metrics=figures,
                    examples=examples,
                    datasets=datasets,
                    license=license,
                    curve=(staged / CURVE).exists(),
                )
                write_text(staged / CARD, str(card))
            return _commit(api, staged, repo, revision, create_pr, commit_message or "Push with metatext")


def _stage(folder: Path, staged: Path) -> tuple[dict[str, Any], int | None]:
    """Put the saved pair into ``staged``; its config, and how many examples a classifier was adapted to."""
    content = read_json(folder / CONFIG).get("content") if folder.is_dir() else None
    config, tensors = read_folder(folder, content if content in CONTENTS else CONTENTS[0])
    name = config["encoder"].get("name") if isinstance(config.get("encoder"), dict) else None
    if not isinstance(name, str):
        raise StorageError(f"{folder / CONFIG} is damaged: it names no encoder")
    language = config.get("language")
    writer = language.get("name") if isinstance(language, dict) else None
    if isinstance(writer, str) and _is_folder(writer):
        raise HubError(
            f"the language model of {folder} is the folder {writer}, which nobody else has; push it to the Hub and train with its id"
        )
    if _is_folder(name):
        raise HubError(
            f"the encoder of {folder} is the folder {name}, which nobody else has; push it to the Hub first and load by its id: "
            f'from_pretrained(..., encoder=Encoder.load("owner/name")) where it is frozen, else train with that id'
        )
    written = {key: value for key, value in config.items() if key not in ("library", "format_version", "weights")}
    write_folder(staged, written, tensors)
    mask = tensors.get("support.row_mask")
    return config, None if mask is None else mask.shape[1]  # of spans the mask is of tokens, a window for each example


def _figures(metrics: Mapping[str, Any] | str | Path | None) -> dict[str, Any] | None:
    """What is published of the metrics: nothing that may name a folder of this machine (config.json says which encoder it was), and no
    scores of single episodes, which may be megabytes that no card shows."""
    found = read_json(Path(metrics)) if isinstance(metrics, (str, Path)) else metrics
    if found is None:
        return None
    found = _without_scores({key: value for key, value in found.items() if key not in ("model", "heads")})
    if isinstance(settings := found.get("settings"), Mapping):
        found["settings"] = {key: value for key, value in settings.items() if key not in ("encoder", "language")}
    return found


def _without_scores(values: Any) -> Any:
    """The same, but for the ``scores`` of what has a ``metric``: the values of a report, wherever they stand."""
    if not isinstance(values, Mapping):
        return values
    return {key: _without_scores(value) for key, value in values.items() if key != "scores" or "metric" not in values}


def _commit(api: HfApi, staged: Path, repo: str, revision: str | None, create_pr: bool, message: str) -> CommitInfo:
    """One commit of all files, which also takes away figures of an earlier push that has none now."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    files = sorted(path for path in staged.iterdir() if path.is_file())
    stale = ({METRICS, CURVE} - {path.name for path in files}) & set(api.list_repo_files(repo, revision=revision))
    # not upload_folder, which may cut a folder into several commits: readers between them would find a mixed pair
    return api.create_commit(
        repo,
        [CommitOperationAdd(path.name, str(path)) for path in files] + [CommitOperationDelete(name) for name in sorted(stale)],
        commit_message=message,
        revision=revision,
        create_pr=create_pr,
    )


def _is_repo_id(source: str | Path) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return True


def _is_folder(name: str) -> bool:
    """Whether what config.json names is a folder, here or seen from where it was saved, and not a repo."""
    return Path(name).exists() or not _is_repo_id(name)


def _is_offline(access: Access) -> bool:
    from huggingface_hub import constants

    return access.local_files_only or constants.HF_HUB_OFFLINE


def _download(repo_id: str, revision: str | None, name: str, access: Access, again: bool) -> Path:
    """The folder of the cache that holds a file of a repo, if the repo has it; ``again``: downloaded anew."""
    with asking(f"{repo_id} is not a folder here, and could not be loaded from the Hub", access.token):
        from huggingface_hub import snapshot_download

        if revision is not None and ".." in revision:  # no branch may be called so, and the cache makes a path of it
            raise HubError(f"revision: expected a branch, a tag or a commit of {repo_id}, got {revision!r}")
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                allow_patterns=[name],
                force_download=again,
                library_name="metatext",
                **vars(access),
            )
        )
