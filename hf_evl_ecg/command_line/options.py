"""Options that several verbs share: how ECGs are drawn, and what of a model is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # --help of a verb must not wait for torch
    from torch import nn

    from hf_evl_ecg.data.rendered import RenderedECG
    from hf_evl_ecg.drawing.config import RenderConfig

__all__ = ["ImageOptions", "LoraOptions", "PageOptions"]


_FIELDS = {"image_width": "width_px", "image_height": "height_px", "layout": "layout", "grid": "grid", "paper": "palette",
           "footer": "footer", "overflow": "overflow"}  # fmt: skip
"""Option → field of RenderConfig."""


def _shown(value: Any) -> str:
    """A layout and a palette by their names."""
    from hf_evl_ecg.drawing.palettes import PALETTES

    return next((name for name, palette in PALETTES.items() if palette == value), str(getattr(value, "name", value)))


@dataclass
class PageOptions:
    """How ECGs are drawn: the same for training, caching and evaluation."""

    image_width: int = field(default=1100, metadata={"help": "Width of the drawn page (px)."})
    image_height: int = field(default=850, metadata={"help": "Height of the drawn page (px)."})
    layout: str = field(default="3x4+rhythm", metadata={"help": "3x4+rhythm, 3x4, 6x2 or 12x1."})
    grid: str = field(default="full", metadata={"help": "full: 1 and 5 mm lines; thick: 5 mm lines; none."})
    paper: str = field(default="red", metadata={"help": "Paper: red, pink, orange, green, blue or grey."})
    footer: bool = field(default=True, metadata={"help": "Write speed and gain (and 'simulated') below the leads."})
    overflow: str = field(default="overlap", metadata={"help": "overlap or clamp, where traces leave their row."})

    def config(self, model: str | None = None) -> RenderConfig:
        """How a page is drawn, without artefacts.

        Args:
            model: Folder or Hub name of a model that is to read the page. Where no option was given, the page is drawn as those it
                was trained on, if it says how.

        Raises:
            PagesError: The options differ from those pages: the model would be asked about pictures unlike any it has seen.
        """
        from hf_evl_ecg.drawing.trained_pages import PagesError, read_pages

        given, trained = self._given(), None if model is None else read_pages(model)
        if trained is None:
            return given
        name = str(model)
        wanted = {option: (getattr(given, field), getattr(trained, field)) for option, field in _FIELDS.items()}
        other = {option: pair for option, pair in wanted.items() if pair[0] != pair[1]}
        if other and given != PageOptions()._given():
            differences = ", ".join(
                f"{option} {_shown(mine)} against {_shown(its)}" for option, (mine, its) in other.items()
            )
            raise PagesError(
                f"{name}: was trained on other pages than are asked for: {differences} (leave the options of pages out, and its own are "
                "taken)"
            )
        return trained

    def described(self, models: Iterable[str]) -> dict[str, Any]:
        """How the pages of an evaluation were drawn, for its results: of the first model, and of each where they differ."""
        pages = {model: self.config(model).to_dict() for model in models}
        first, *rest = pages.values()
        return {"images": first} | ({"images_of": pages} if any(other != first for other in rest) else {})

    def _given(self) -> RenderConfig:
        from hf_evl_ecg.drawing.config import RenderConfig

        return RenderConfig(
            width_px=self.image_width,
            height_px=self.image_height,
            layout=self.layout,
            grid=self.grid,
            palette=self.paper,
            footer=self.footer,
            overflow=self.overflow,
        )

    def renderer(self, model: str | None = None) -> RenderedECG:
        """The image loader, of clean pages; ``model`` as in `config`."""
        from hf_evl_ecg.data.rendered import RenderedECG

        return RenderedECG(self._said(model))

    def _said(self, model: str | None) -> RenderConfig:
        """As `config`, and a line on the terminal where the model's own pages were taken."""
        config = self.config(model)
        if config != self._given():
            print(f"{model}: ECGs are drawn as in its training, {config.width_px} x {config.height_px} px.", flush=True)
        return config


@dataclass
class ImageOptions(PageOptions):
    """How ECGs are drawn, and with which artefacts: the same for training and caching."""

    augment: float = field(
        default=0.0, metadata={"help": "Share of training pages with artefacts (rotation, noise, creases …), 0 to 1."}
    )
    image_seed: int = field(
        default=0,
        metadata={"help": "Artefacts follow from this seed and the record's name; -1 draws new ones each time."},
    )

    def training_renderer(self, model: str | None = None) -> RenderedECG:
        """The image loader of training: with artefacts if ``augment`` is positive; ``model`` as in `config`."""
        from hf_evl_ecg.data.rendered import RenderedECG
        from hf_evl_ecg.drawing.artefacts import AugmentConfig

        augment = AugmentConfig(probability=self.augment) if self.augment > 0 else None
        return RenderedECG(self._said(model), augment, None if self.image_seed == -1 else self.image_seed)


@dataclass
class LoraOptions:
    """Whether all weights are trained, or low-rank adapters of the decoder."""

    lora_rank: int = field(default=0, metadata={"help": "Rank of LoRA adapters (peft); 0 trains all weights."})
    lora_alpha: float = field(default=32.0, metadata={"help": "Scale of LoRA."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout of LoRA."})
    lora_targets: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        metadata={"help": "Names of the linear layers that get adapters."},
    )

    def wrap(self, model: Any) -> nn.Module:
        """The model itself, or with adapters in its decoder."""
        if self.lora_rank == 0:
            return model
        from peft import LoraConfig, get_peft_model
        from torch import nn

        # Vision towers have layers of the same names; the names of targets say nothing of where they lie.
        decoder = {id(module) for module in model.get_decoder().modules()}
        targets = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.split(".")[-1] in self.lora_targets and id(module) in decoder
        ]
        if not targets:
            raise ValueError(f"lora_targets={self.lora_targets}: the decoder has no such linear layers (name others)")
        config = LoraConfig(
            r=self.lora_rank,
            lora_alpha=self.lora_alpha,  # type: ignore[arg-type]  # a factor, which need not be whole
            lora_dropout=self.lora_dropout,
            target_modules=targets,
        )
        return get_peft_model(model, config)
