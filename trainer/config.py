"""What a run is told: every option, with the names and defaults of diffusers' ``train_dreambooth`` where it has them.

Imports nothing heavy, since the command's ``--help`` is made of it. ``config_file.py`` makes one of layers and files.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mezzotint.trainer.grounds import Colour

CONFIG = "config.yaml"
"""The name of a run's own configuration in its folder."""

RECIPE = "dreambooth.yaml"
"""The name of a model's own defaults in its folder."""

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class Painting(TypedDict):
    """How a painter paints: denoising steps and the guidance scale."""

    steps: int
    guidance: float


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Concept(_Strict):
    """One thing to learn, and the class that it is one of."""

    instance_data_dir: Path
    instance_prompt: str = ""
    class_data_dir: Path | None = None
    class_prompt: str = ""


class TrainConfig(_Strict):
    """All options of a run; a field's description is its line in ``--help``."""

    # What is learned, and by what
    pretrained_model_name_or_path: str = Field("", description="The model to start from; the command's BASE.")
    base_config: Path | None = Field(
        None, description="A diffusers folder with the configs of a single file that is neither SD 1.5 nor 2.1."
    )
    instance_data_dir: Path | None = Field(None, description="The folder with pictures of the subject; 3 to 10 do.")
    instance_prompt: str = Field(
        "", description="What those pictures show, with a rare word for the subject, such as `a photo of a sks cat`."
    )
    class_data_dir: Path | None = Field(
        None,
        description="A folder of class pictures that is filled up and used again. [default: in the user's cache "
        "folder, by model and prompt]",
    )
    class_prompt: str = Field(
        "",
        description="What a picture of the subject's class is, such as `a photo of a cat`. Given, the model is held "
        "to what it painted for it before.",
    )
    identifier: str = Field(
        "",
        description="The word that stands for the subject. [default: what the instance prompt has and the class "
        "prompt has not]",
    )
    concepts: tuple[Concept, ...] = Field(
        (), description="In a file: several things to learn at once, each with the four fields above."
    )
    captions: Literal["prompt", "filename", "txt"] = Field(
        "prompt",
        description="Where a picture's caption comes from: the prompt, for all alike; its file's name; or a .txt file "
        "beside it.",
    )
    with_prior_preservation: bool = Field(
        False,
        description="Train on class pictures beside the subject's, so that the class stays what it was. [default: "
        "with a class prompt]",
    )
    prior_loss_weight: NonNegativeFloat = Field(
        1.0, description="How much a class picture counts beside one of the subject."
    )
    num_class_images: PositiveInt = Field(
        100, description="Class pictures to have; those that are missing are painted by the model itself."
    )
    prior_prompts: tuple[str, ...] = Field(
        (),
        description="Further prompts whose pictures a model is held to beside the class's, such as `a dog on a red "
        "background`: other things that it knows, and grounds. A model's own recipe may name them.",
    )
    num_prior_images: PositiveInt = Field(2, description="Pictures to have of each of those.")
    proportion_empty_prompts: Fraction = Field(
        0.0,
        description="The share of class rows that have no caption. Guidance starts from what the empty prompt paints: "
        "where the model drifts there, pictures become harsh. 0.1 is what models are usually trained with.",
    )
    sample_batch_size: PositiveInt = Field(4, description="Class pictures that are painted at once.")
    sample_steps: PositiveInt = Field(50, description="Denoising steps of class pictures and of pictures on the way.")
    sample_guidance: NonNegativeFloat = Field(7.5, description="Their guidance scale.")

    # Pictures
    resolution: PositiveInt = Field(
        512, description="The pictures' side in pixels; others are resized and cropped. [default: the model's own]"
    )
    instance_grounds: dict[str, Colour] = Field(
        {},
        description="In a file: plain colours by what a caption says of them, such as `on a red background: [220, 50, "
        "47]`. Pictures of the subject on a plain ground are shown on each of these too, so that it brings none along.",
    )
    center_crop: bool = Field(False, description="Crop the middle of a picture and not a random part.")
    random_flip: bool = Field(False, description="Mirror every second picture; not for what has a left and a right.")
    repeats: PositiveInt = Field(
        1, description="How often an epoch shows each picture of the subject, at least: more, where the class has more."
    )
    cache_latents: bool = Field(
        True, description="Encode pictures once and not at each step, where crops and flips leave them the same."
    )
    pre_compute_text_embeddings: bool = Field(
        False, description="Encode captions once. [default: where the text encoder is not trained]"
    )
    dataloader_num_workers: NonNegativeInt = Field(0, description="Processes that read pictures beside the training.")

    # How long, and what of the model
    output_dir: Path = Field(Path("dreambooth-model"), description="The run's folder.")
    seed: NonNegativeInt = Field(0, description="All that is drawn at random follows from it.")
    train_text_encoder: bool = Field(False, description="Train the text encoder too; learns faster, forgets faster.")
    lora_rank: NonNegativeInt = Field(0, description="Train low-rank matrices of this rank; 0 trains the weights.")
    lora_alpha: PositiveFloat = Field(4.0, description="The matrices count by this over their rank.")
    lora_dropout: Fraction = Field(0.0, description="The share of their inputs that is dropped in training.")
    lora_layers: tuple[str, ...] = Field(
        (), description="The ends of the UNet's layer names that get matrices. [default: its attentions' four]"
    )
    train_batch_size: PositiveInt = Field(4, description="Pictures of the subject in a batch, on each device.")
    num_train_epochs: PositiveInt = Field(
        1,
        description="Epochs: each has as many examples as the longer of two lists, the subject's pictures times "
        "--repeats or the class's.",
    )
    max_train_steps: PositiveInt | None = Field(None, description="Steps of the optimizer; goes before the epochs.")
    gradient_accumulation_steps: PositiveInt = Field(
        1, description="Batches that make one step; a large batch on a small device."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again on the way back: a third slower, much less memory."
    )
    mixed_precision: Literal["no", "fp16", "bf16"] = Field(
        "no", description="What a GPU computes in; weights stay float32. On most CPUs `no` is by far the fastest."
    )
    allow_tf32: bool = Field(False, description="Let NVIDIA GPUs round float32 products to TF32; faster.")

    # Optimizer and loss
    optimizer: Literal["adamw", "adamw-8bit", "prodigy", "adafactor"] = Field(
        "adamw",
        description="adamw-8bit takes a quarter of the memory for its state (NVIDIA GPUs, bitsandbytes); prodigy finds "
        "its own rate (--learning-rate 1); adafactor keeps least.",
    )
    learning_rate: PositiveFloat = Field(
        5e-6, description="The rate after warm-up; for LoRA about 1e-4, for Prodigy 1."
    )
    text_encoder_lr: PositiveFloat | None = Field(None, description="The text encoder's own. [default: the same]")
    scale_lr: bool = Field(False, description="Multiply the rate by devices, accumulation and batch size.")
    lr_scheduler: Literal[
        "constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"
    ] = Field("constant", description="How the rate goes over the run.")
    lr_warmup_steps: NonNegativeInt = Field(500, description="Steps in which it rises from 0; not with `constant`.")
    lr_num_cycles: PositiveInt = Field(1, description="Restarts of cosine_with_restarts.")
    lr_power: PositiveFloat = Field(1.0, description="The power of polynomial.")
    adam_beta1: Fraction = Field(0.9, description="Decay of the gradients' mean (Adam, Prodigy).")
    adam_beta2: Fraction = Field(0.999, description="Decay of the mean of their squares (Adam, Prodigy).")
    adam_weight_decay: NonNegativeFloat = Field(1e-2, description="Decoupled weight decay, of any optimizer.")
    adam_epsilon: PositiveFloat = Field(1e-8, description="Added to the root of that mean (Adam, Prodigy).")
    max_grad_norm: NonNegativeFloat = Field(1.0, description="Longer gradients are cut to this norm; 0 cuts none.")
    snr_gamma: PositiveFloat | None = Field(
        None, description="Weigh timesteps by min(SNR, gamma), for even progress over them; 5 is usual. [default: off]"
    )
    offset_noise: bool = Field(False, description="Shift each channel's noise, for very dark or bright pictures.")
    ema_decay: Fraction = Field(
        0.0, description="Keep a moving average of the weights and give that; 0.999 for some 1,000 steps, 0 is off."
    )

    # What is kept and shown on the way
    checkpointing_steps: PositiveInt = Field(500, description="Steps between checkpoints, from which a run goes on.")
    checkpoints_total_limit: PositiveInt | None = Field(
        None, description="Checkpoints to keep; the oldest go first. [default: all]"
    )
    resume_from_checkpoint: str | None = Field(
        None, description="Go on from a checkpoint's folder, or from the run's last one with `latest`."
    )
    validation_prompt: str = Field("", description="A prompt that is painted on the way.")
    num_validation_images: PositiveInt = Field(4, description="Pictures of it.")
    validation_steps: PositiveInt = Field(
        100, description="Steps between those pictures, and between measures of the loss on fixed noise."
    )
    report_to: Literal["tensorboard", "wandb", "all", "none"] = Field(
        "tensorboard",
        description="Who gets losses and pictures. W&B writes files to send later, unless WANDB_MODE=online.",
    )

    # Where it runs, in Lightning's words
    accelerator: str = Field("auto", description="cpu, gpu or what else Lightning knows.")
    devices: int | str = Field("auto", description="How many of them, or which.")
    num_nodes: PositiveInt = Field(1, description="Machines.")
    strategy: str = Field("auto", description="How they share the work: ddp, or fsdp for models too large for one.")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Decide what follows from other fields, so that a saved run says it."""
        if not isinstance(values, Mapping):
            return values
        concepts = values.get("concepts") or ()
        has_class = any(c.get("class_prompt") for c in (values, *concepts) if isinstance(c, Mapping))
        has_class = has_class or any(c.class_prompt for c in concepts if isinstance(c, Concept))
        return {
            "with_prior_preservation": has_class,
            "pre_compute_text_embeddings": not values.get("train_text_encoder", False),
            **values,
        }

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.concepts) == (self.instance_data_dir is not None):
            raise ValueError("instance_data_dir: give it, or `concepts` in a file, and not both")
        for concept in self.all_concepts:
            if self.captions == "prompt" and not concept.instance_prompt.strip():
                raise ValueError(
                    "instance_prompt: give one, such as `a photo of a sks cat`, or captions of each picture"
                )
            if self.with_prior_preservation and not concept.class_prompt.strip():
                raise ValueError("class_prompt: give one, such as `a photo of a cat`, or no prior preservation")
        classes = {(each.class_data_dir, each.class_prompt) for each in self.all_concepts if each.class_data_dir}
        if self.with_prior_preservation and len(classes) > len({folder for folder, _ in classes}):
            raise ValueError("class_data_dir: two class prompts have one; give each a folder of its own, or none")
        if self.optimizer == "prodigy" and self.text_encoder_lr not in (None, self.learning_rate):
            raise ValueError("text_encoder_lr: not with prodigy, which finds one rate for all")
        if self.train_text_encoder and self.pre_compute_text_embeddings:
            raise ValueError("pre_compute_text_embeddings: not with train_text_encoder, whose outputs change")
        return self

    @property
    def painting(self) -> Painting:
        """How class pictures are painted, and pictures on the way."""
        return {"steps": self.sample_steps, "guidance": self.sample_guidance}

    @property
    def all_concepts(self) -> tuple[Concept, ...]:
        """What is learned: ``concepts``, or the one of the flat fields."""
        if self.instance_data_dir is None:
            return self.concepts
        return (
            Concept(
                instance_data_dir=self.instance_data_dir,
                instance_prompt=self.instance_prompt,
                class_data_dir=self.class_data_dir,
                class_prompt=self.class_prompt,
            ),
        )

    def save(self, path: Path) -> None:
        """Write every option as YAML that ``load_config`` reads."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")
