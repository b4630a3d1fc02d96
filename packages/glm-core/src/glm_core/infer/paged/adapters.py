"""What texts may be computed with beside the model alone: LoRA and tuned prefixes, by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from glm_core.model.transformer import Transformer
from glm_core.tune.lora import CONFIG, Lora, load_lora, lora_rows
from glm_core.tune.prefix import PrefixEncoder
from glm_core.tune.prefix_file import read_prefix


class Adapters:
    """The adapters of a model; "" is the model as it is, with its own prefix if it has one."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._loras: dict[str, Lora] = {}
        self._prefixes: dict[str, PrefixEncoder] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of all that were added."""
        return (*self._loras, *self._prefixes)

    def add(self, name: str, folder: Path | str) -> None:
        """Reads an adapter: a folder that PEFT wrote, or a prefix as `load_prefix` takes it.

        Raises:
            ValueError: the name is empty or taken.
            CheckpointError: there is no adapter, or one of another model.
        """
        if not name or name in self.names:
            fault = f"{name!r} is taken" if name else "is empty"
            raise ValueError(f"the name of an adapter {fault}: give each a name of its own")
        if (Path(folder) / CONFIG).is_file():
            self._loras[name] = load_lora(self._model, folder)
        else:
            encoder = read_prefix(self._model.config, folder)
            self._prefixes[name] = encoder.to(self._model.device).eval()

    def check(self, name: str) -> None:
        """Raises ValueError when no adapter has the name."""
        if name and name not in self.names:
            raise ValueError(
                f"adapter {name!r} is unknown: there are {', '.join(self.names) or 'none'}"
            )

    def num_front(self, name: str) -> int:
        """Returns how many columns stand before the text's."""
        prefix = self._prefix(name)
        return 0 if prefix is None else prefix.prefix_len

    def is_lora(self, name: str) -> bool:
        """Whether it changes what new columns are computed with."""
        return name in self._loras

    @contextmanager
    def on_text(self, name: str) -> Iterator[None]:
        """While it lasts, the model computes with an adapter, and puts its prefix in front."""
        with self._with_prefix(self._prefix(name)), self._with_loras([name]):
            yield

    @contextmanager
    def on_rows(self, names: Sequence[str]) -> Iterator[None]:
        """While it lasts, row i is computed with `names[i]`; prefixes are in the cache already."""
        with self._with_prefix(None), self._with_loras(names):
            yield

    def _prefix(self, name: str) -> PrefixEncoder | None:
        return self._prefixes.get(name, self._model.prefix)

    @contextmanager
    def _with_prefix(self, prefix: PrefixEncoder | None) -> Iterator[None]:
        own, self._model.prefix = self._model.prefix, prefix
        try:
            yield
        finally:
            self._model.prefix = own

    @contextmanager
    def _with_loras(self, names: Sequence[str]) -> Iterator[None]:
        loras = [self._loras.get(name) for name in names]
        with ExitStack() as stack:
            if any(loras):
                stack.enter_context(lora_rows(self._model, loras))
            yield
