"""Networks to folders and to the Hugging Face Hub, by huggingface_hub's own mixin.

``config.json`` holds the network's settings as plain JSON, ``model.safetensors`` the
weights, ``README.md`` a model card. Reading runs no code: settings are names and
numbers, and the mixin's way back to pickled weights is closed.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from pcequi.errors import FileError, MissingPackageError
from pcequi.files import expanded
from pcequi.models.weights import check_own_weights, check_weights
from pcequi.pose_graph import Level

try:
    from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
except ImportError:
    PyTorchModelHubMixin = None

__all__ = ["HubMixin"]

WEIGHTS = "model.safetensors"
TAGS = ["point-cloud", "equivariance", "se3", "3d", "pytorch-geometric"]
PAPER = "https://arxiv.org/abs/2605.15368"
CARD = """---
{{ card_data }}
---

# {{ model_name | default("A classifier of point clouds of unknown orientation", true) }}

A rotation-equivariant network of pcequi on poses sampled in feature space
([paper]({{ paper_url }})).
The settings are in `config.json`.

```python
from pcequi.models import GroupConvClassifier

model = GroupConvClassifier.from_pretrained("{{ repo_id | default("user/network", true) }}")
```

Clouds go through `pcequi.transforms.BuildPoseGraph(model.levels)` first, scaled to unit radius.
"""

if PyTorchModelHubMixin is None:

    class HubMixin:
        """The Hub's methods where huggingface_hub is not installed: they say so.

        Raises:
            MissingPackageError: by each of the methods.

        **Equivariance:** does not apply.
        """

        def save_pretrained(self, *_, **__):
            raise _missing("save_pretrained")

        @classmethod
        def from_pretrained(cls, *_, **__):
            raise _missing("from_pretrained")

        def push_to_hub(self, *_, **__):
            raise _missing("push_to_hub")

else:

    class HubMixin(
        PyTorchModelHubMixin,
        library_name="pcequi",
        tags=TAGS,
        paper_url=PAPER,
        model_card_template=CARD,
    ):
        """``save_pretrained``, ``from_pretrained`` and ``push_to_hub`` of huggingface_hub,
        for a network that has ``from_settings`` and puts its settings (plain JSON)
        into ``_hub_mixin_config``.

        **Equivariance:** does not apply.
        """

        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options):
            """A network from a folder that ``save_pretrained`` wrote, or from the Hub.

            Args:
                pretrained_model_name_or_path: the folder; if there is none of this
                    name, a repository of the Hub such as ``"user/network"``.
                options: those of huggingface_hub's ``ModelHubMixin.from_pretrained``
                    (``revision``, ``token``, ``cache_dir``, ``local_files_only``),
                    ``map_location``, and settings to change, such as ``dropout``.

            Returns:
                The network in ``eval()`` mode, in the dtype of its weights.

            Raises:
                FileError: files are missing or damaged, do not fit each other, or
                    could not be fetched.
                MissingPackageError: huggingface_hub is missing.

            **Equivariance:** does not apply.
            """
            name = str(pretrained_model_name_or_path)
            try:
                return super().from_pretrained(expanded(name), **options)
            except FileError:
                raise
            except Exception as error:  # damaged files and the network fail in many ways
                reason = " ".join(str(error).split("\n")[:2]).replace("\t", "")  # torch lists all
                raise FileError(
                    f"`pretrained_model_name_or_path` (={name!r}) gave no network of pcequi "
                    f"({type(error).__name__}: {reason}); name a folder that save_pretrained "
                    "wrote, or a repository of the Hub"
                ) from error

        def _save_pretrained(self, save_directory: Path) -> None:
            """The mixin's hook: what nobody could read is not written."""
            check_own_weights(self)
            super()._save_pretrained(save_directory)

        @classmethod
        def _from_pretrained(
            cls, *, model_id, config=None, map_location="cpu", strict=True, revision=None,
            cache_dir=None, force_download=False, local_files_only=False, token=None, **settings,
        ):  # fmt: skip
            """The mixin's hook. Its own would read pickled weights where there are no
            others, leave out what does not fit, and change the dtype."""
            if config is None:
                raise FileError(f"{model_id!r} lacks config.json: write it with save_pretrained")
            settings["levels"] = [
                level.to_dict() if isinstance(level, Level) else level
                for level in settings.get("levels", ())
            ]
            if (file := Path(model_id) / WEIGHTS).parent.is_dir():
                if not file.is_file():
                    raise FileError(
                        f"{model_id!r} lacks {WEIGHTS}: write it with save_pretrained; weights in "
                        "other files are not read, for they could run code"
                    )
            else:
                file = hf_hub_download(
                    model_id, WEIGHTS, revision=revision, cache_dir=cache_dir,
                    force_download=force_download, token=token, local_files_only=local_files_only,
                )  # fmt: skip
            tensors = load_file(file, device=str(map_location))
            if strict:
                check_weights(cls, settings, tensors)
            model = cls.from_settings(settings).to(map_location)
            kinds = {value.dtype for value in tensors.values() if value.is_floating_point()}
            model.to(kinds.pop() if len(kinds) == 1 else torch.float32)
            model.load_state_dict(tensors, strict=strict)
            return model.eval()


def _missing(method: str) -> MissingPackageError:
    return MissingPackageError(
        f"`{method}` needs huggingface_hub, which is not installed: "
        'pip install ".[hub]" in the folder of the repository. '
        "Without it, torch.save(model.state_dict(), FILE) and from_settings(model.settings) do"
    )
