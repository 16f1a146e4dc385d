"""Networks in the layout of the Hugging Face Hub: ``config.json``, ``model.safetensors``.

The same methods as huggingface_hub's ``PyTorchModelHubMixin``, with local
folders needing nothing but safetensors; the package is only imported to talk to
the Hub. Reading runs no code: JSON names settings, safetensors holds numbers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pcequi.errors import FileError, MissingPackageError, PcequiError

__all__ = ["HubMixin"]

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class HubMixin:
    """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` for a network
    that has ``settings`` (plain JSON) and ``from_settings``.

    **Equivariance:** does not apply.
    """

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` into a folder.

        Args:
            folder: made if needed.

        Returns:
            The folder.

        **Equivariance:** does not apply.
        """
        folder = Path(folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        config = {"library_name": "pcequi", "model": type(self).__name__, "settings": self.settings}
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
        # Copies: safetensors refuses tensors that share memory.
        tensors = {k: v.detach().cpu().contiguous().clone() for k, v in self.state_dict().items()}
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})
        return folder

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, token: str | None = None
    ):
        """A network from a local folder, or from the Hub.

        Args:
            name: a folder that ``save_pretrained`` wrote; if there is none of
                this name, a repository of the Hub such as ``"user/network"``.
            revision: of the repository: branch, tag or commit.
            token: for a private repository.

        Returns:
            The network in ``eval()`` mode, in the dtype of its weights.

        Raises:
            FileError: files are missing or damaged, or do not fit each other.
            MissingPackageError: the Hub is needed and huggingface_hub missing.

        **Equivariance:** does not apply.
        """
        folder = Path(name).expanduser()
        if not folder.is_dir():
            hub = _hub(f"`name` (={str(name)!r}) is no folder, and to ask the Hub for it")
            folder = Path(
                hub.snapshot_download(
                    str(name), revision=revision, token=token, allow_patterns=[CONFIG, WEIGHTS]
                )
            )
        return _read(cls, folder)

    def push_to_hub(
        self, name: str, *, private: bool = False, token: str | None = None, message: str = "pcequi"
    ) -> str:
        """Upload to the Hub.

        Args:
            name: repository, such as ``"user/network"``; made if needed.
            private: of a repository that is made.
            token: by default that of ``hf auth login``.
            message: of the commit.

        Returns:
            The address of the repository.

        Raises:
            MissingPackageError: huggingface_hub is missing.

        **Equivariance:** does not apply.
        """
        api = _hub("to upload to the Hub").HfApi(token=token)
        address = api.create_repo(name, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
        return str(address)


def _hub(purpose: str):
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose}, huggingface_hub is needed: pip install huggingface_hub"
        ) from error
    return huggingface_hub


def _read(cls, folder: Path):
    remedy = "write it again with save_pretrained"
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileError(f"`name` (={str(folder)!r}) lacks {name}; {remedy}")
    try:
        settings = json.loads((folder / CONFIG).read_text())["settings"]
        tensors = load_file(folder / WEIGHTS)
        model = cls.from_settings(settings)
        kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
        model.to(kinds.pop() if len(kinds) == 1 else torch.float32).load_state_dict(tensors)
    except (
        PcequiError, SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError,
        RuntimeError,
    ) as error:  # fmt: skip
        raise FileError(
            f"`name` (={str(folder)!r}) holds no network of pcequi ({error}); {remedy}"
        ) from error
    return model.eval()
