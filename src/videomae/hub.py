"""Find the files of a checkpoint: in a local folder, or on the Hugging Face Hub and in its cache."""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from videomae.errors import CheckpointError

logger = logging.getLogger(__name__)

UPLOAD_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "token", "revision", "create_pr")
HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")

# Options of transformers' from_pretrained that ask for what is always so here: weights are never loaded twice, no code
# of a checkpoint is ever run, and there is one kind of processor.
_WITHOUT_EFFECT = {"_fast_init", "_from_auto", "code_revision", "low_cpu_mem_usage", "offload_state_dict"}
_WITHOUT_EFFECT |= {"resume_download", "trust_remote_code", "use_fast", "weights_only"}

# The form of "organisation/name", which no other path has; the Hub's finer rules are checked by huggingface_hub.
_REPO_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)

_MAX_JSON = 2**26  # bytes, of which Python makes some ten times as many

# A Hub that did not answer is left alone for this long, so that a load of five cached files waits for it once.
_PATIENCE = 30.0
silent_until: dict[str, float] = {}


def fetch_file(
    path_or_id: str | Path,
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    subfolder: str = "",
) -> Path:
    """Return the local path of one file of a checkpoint, downloading it if need be.

    A folder or file of that name comes before the Hub. The environment variables HF_ENDPOINT, HF_HOME, HF_HUB_CACHE,
    HF_TOKEN and HF_HUB_OFFLINE work as in huggingface_hub. A Hub that cannot be reached is asked once, for at most
    HF_HUB_ETAG_TIMEOUT seconds (10 unless set); then the copy in the cache is used, with a logged warning.

    Args:
        path_or_id: a folder, the file itself, or the id of a model on the Hub ("organisation/name").
        filename: the file to find, e.g. "config.json".
        revision: branch, tag or commit on the Hub; by default its main branch.
        token: access token for private and gated models; by default the one stored by ``hf auth login``, False: none.
        cache_dir: where downloads are kept; by default the cache of Hugging Face.
        local_files_only: do not ask the Hub, take what is in the cache.
        force_download: download even what is in the cache.
        subfolder: folder inside the checkpoint that holds the file.

    Returns:
        The path.

    Raises:
        CheckpointError: if there is no such file, model or revision, if it may not be read, if the Hub cannot be
            reached and the cache does not have the file, or if the file is a web page or a Git LFS pointer.
    """
    path, missing = _locate(
        path_or_id,
        filename,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
        subfolder=subfolder,
    )
    if path is None:
        raise CheckpointError(missing)
    return path


def find_file(path_or_id: str | Path, filename: str, **hub_options: Any) -> Path | None:
    """Do what ``fetch_file`` does, but return None where there is no such file.

    Without a connection, "no such file" means that it is not in the cache.
    """
    return _locate(path_or_id, filename, **hub_options)[0]


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object from a file that ``fetch_file`` found.

    Raises:
        CheckpointError: if the file cannot be read or does not hold a JSON object.
    """
    try:
        if Path(path).stat().st_size > _MAX_JSON:
            raise ValueError(f"it is larger than {_MAX_JSON} bytes.")
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"cannot read {path} as JSON: {str(error).rstrip('.')}. Fetch or save it again."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
    return content


@contextmanager
def stored_in(path: str | Path) -> Iterator[None]:
    """Raise a CheckpointError that names the file where a block does not find in it what it should hold."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).rstrip('.')}"
        raise CheckpointError(
            f"{path} does not hold what it should ({reason}): it is damaged, or of another version."
        ) from error


def split_hub_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split the keywords of a ``from_pretrained`` into those for ``fetch_file`` and the others that have an effect."""
    hub = {name: value for name, value in options.items() if name in HUB_OPTIONS}
    return hub, {n: value for n, value in options.items() if n not in HUB_OPTIONS and n not in _WITHOUT_EFFECT}


def upload(
    save: Callable[[Path], Any],
    repo_id: str,
    *,
    commit_message: str,
    commit_description: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload what ``save`` writes into a folder to a model on the Hugging Face Hub.

    Args:
        save: takes the folder.
        repo_id: "organisation/name", or a name of one's own; made if needed.
        commit_message: title of the commit.
        commit_description: the rest of its message.
        private: whether a model that is made can be seen by its owner only; None as the organisation has it.
        token: with the right to write; by default the one stored by ``hf auth login``.
        revision: branch to commit to, made if needed; by default main.
        create_pr: whether to ask for the change instead of making it.

    Returns:
        The address of the commit.

    Raises:
        CheckpointError: if the Hub refuses, or cannot be reached.
    """
    import tempfile

    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=_endpoint(), token=token)
    commit: dict[str, Any] = {
        "commit_message": commit_message,
        "commit_description": commit_description,
        "create_pr": create_pr,
    }
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None and not revision.startswith("refs/pr"):
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            save(Path(folder))
            info = api.upload_folder(repo_id=repo_id, folder_path=folder, revision=revision, **commit)
            return str(info.commit_url)
    except (HfHubHTTPError, ConnectionError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise CheckpointError(
            f"cannot upload to {repo_id!r} ({reason}). Log in with the right to write (`hf auth login`), or give its "
            "token=."
        ) from error


def refuse_placeholder(path: Path) -> None:
    """Refuse what was saved in place of a file: the web page of a failed download, or an unresolved Git LFS pointer."""
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")) and path.suffix not in (".html", ".md"):
        raise CheckpointError(f"{path} is a web page, saved in place of a file. Download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not the file it stands for. Run `git lfs pull` there.")


def _locate(path_or_id: str | Path, filename: str, *, subfolder: str = "", **download: Any) -> tuple[Path | None, str]:
    """Return the file, or None and what to say if it was needed."""
    place = Path(path_or_id).expanduser()
    if os.path.exists(place):  # False for a name that cannot be
        path, missing = _local_file(place, subfolder, filename)
    elif _REPO_ID.fullmatch(str(path_or_id)):
        inside = f"{subfolder}/{filename}" if subfolder else filename
        path, missing = _hub_file(str(path_or_id), inside, **download)
    else:
        raise CheckpointError(
            f"there is no folder or file {str(path_or_id)!r}, and a model on the Hugging Face Hub is written "
            "'organisation/name'. Check the path."
        )
    if path is not None:
        refuse_placeholder(path)
    return path, missing


def _run_of(folder: Path) -> Path | None:
    """Return what describes the model of a checkpoint of a run: RUN/model of ours, RUN of transformers' Trainer."""
    folder = folder.resolve()
    if re.fullmatch(r"step-\d+", folder.name):
        return folder.parent.parent / "model"
    return folder.parent if re.fullmatch(r"checkpoint-\d+", folder.name) else None


def _local_file(place: Path, subfolder: str, filename: str) -> tuple[Path | None, str]:
    """Return the file, or None and what to say if it was needed."""
    if place.is_file():
        return (place if place.name == filename else None), (
            f"{filename} is needed, got the file {str(place)!r}. Give the folder that holds {filename}."
        )
    path = place / subfolder / filename
    if not path.is_file() and filename.endswith("config.json") and (run := _run_of(place)):
        path = run / filename
    inner = place / subfolder / "model"  # of a run
    advice = f"Did you mean {str(inner)!r}?" if (inner / filename).is_file() else "Give the folder of a checkpoint."
    return (path if path.is_file() else None), (f"the folder {str(place / subfolder)!r} holds no {filename}. {advice}")


def _hub_file(
    repo_id: str,
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> tuple[Path | None, str]:
    """Return the cached or downloaded file, or None and what to say if it was needed."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    endpoint = _endpoint()
    problem: Exception | None = None
    if local_files_only or constants.HF_HUB_OFFLINE:
        problem = errors.OfflineModeIsEnabled("offline mode is on")
    else:
        try:
            commit = _current_commit(endpoint, repo_id, filename, revision, token)
        except errors.EntryNotFoundError:
            return None, f"{repo_id!r} on the Hugging Face Hub has no file {filename!r} at {revision or 'main'!r}."
        except Exception as error:  # whose classes depend on the HTTP library of the installed huggingface_hub
            problem = error
        else:
            cached = huggingface_hub.try_to_load_from_cache(repo_id, filename, cache_dir=cache_dir, revision=commit)
            if isinstance(cached, str) and not force_download:
                return Path(cached), ""
    if problem is not None and force_download:
        raise CheckpointError(_explain(problem, endpoint, repo_id, filename, revision)) from problem
    try:
        path = huggingface_hub.hf_hub_download(
            repo_id,
            filename,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            endpoint=endpoint,
            local_files_only=problem is not None,
            force_download=force_download,
        )
    except Exception as error:
        explanation = _explain(problem or error, endpoint, repo_id, filename, revision)
        refused = isinstance(problem, errors.HfHubHTTPError)
        if refused or not isinstance(error, errors.LocalEntryNotFoundError):
            raise CheckpointError(explanation) from (problem or error)
        return None, explanation
    if problem is not None and not isinstance(problem, errors.OfflineModeIsEnabled):
        logger.warning("%s Using the copy in the cache.", _explain(problem, endpoint, repo_id, filename, revision))
        silent_until[endpoint] = time.monotonic() + _PATIENCE
    return Path(path), ""


def _endpoint() -> str:
    """Return the address of the Hub; huggingface_hub reads the variable at its import only."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or constants.ENDPOINT


def _current_commit(endpoint: str, repo_id: str, filename: str, revision: str | None, token: str | bool | None) -> str:
    """Ask the Hub, once, which commit holds the file now.

    ``hf_hub_download`` asks as well, but repeats the question five times over 23 seconds if nobody answers.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if time.monotonic() < silent_until.get(endpoint, 0.0):
        raise TimeoutError("it did not answer a moment ago.")
    url = hf_hub_url(repo_id, filename, revision=revision, endpoint=endpoint)
    commit = get_hf_file_metadata(url, token=token).commit_hash
    if commit is None:
        raise ConnectionError(f"{endpoint} answers like a web site, not like the Hub: a login page or a proxy?")
    return commit


def _explain(error: Exception, endpoint: str, repo_id: str, filename: str, revision: str | None) -> str:
    """Say what went wrong with a download, and what to do about it, in a sentence or two."""
    from huggingface_hub import errors

    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    match error:
        case errors.GatedRepoError():
            return f"{repo_id!r} is gated. Accept its terms at {endpoint}/{repo_id}, then log in (`hf auth login`)."
        case errors.RepositoryNotFoundError():
            return (
                f"there is no folder {repo_id!r}, and no such model on the Hugging Face Hub that you may read. Check "
                "the name; if the model is private, give its token= or log in (`hf auth login`)."
            )
        case errors.RevisionNotFoundError():
            return f"{repo_id!r} has no revision {revision!r}. Give one of its branches, tags or commits."
        case errors.HfHubHTTPError() if error.response.status_code in (401, 403):
            return (
                f"the Hugging Face Hub refused your token for {repo_id!r} ({reason}). Log in again (`hf auth login`)."
            )
        case errors.HfHubHTTPError():
            return f"the Hugging Face Hub failed for {filename!r} of {repo_id!r} ({reason}). Try again later."
        case errors.HFValidationError():
            return f"there is no folder {repo_id!r}, and it is no name of a model on the Hugging Face Hub ({reason})."
        case errors.OfflineModeIsEnabled():
            return (
                f"{filename!r} of {repo_id!r} is not in the cache, and offline mode is on. Connect once to download "
                "it, or give a local folder."
            )
        case _:
            return (
                f"cannot reach the Hugging Face Hub for {repo_id!r} ({reason}). Connect once to download it, or give a "
                "local folder."
            )
