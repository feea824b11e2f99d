"""The step of a run, as a LightningModule: from a batch to its loss, with whatever is frozen kept out of the way."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import diffusers
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel

from mezzotint.trainer import draws, loss
from mezzotint.trainer.base import Base
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.optimizers import Groups, follow, make_optimizer, make_schedule, parameter_groups, told_options

Batch = dict[str, torch.Tensor]

# How a module is told: diffusers', transformers' new name, and the old one.
_CHECKPOINTING = (
    "enable_gradient_checkpointing",
    "activation_checkpointing_enable",
    "gradient_checkpointing_enable",
)


class DreamBooth(LightningModule):
    """The UNet and, where it is trained, the text encoder; frozen modules stay the base's and are not of its state.

    It trains the base's modules in place. LoRA's matrices are put beside them before. All randomness of a step comes
    from the batch's ``keys``, so the same batch has the same loss whenever it is asked for.
    """

    alphas: torch.Tensor
    """ᾱ by timestep, a buffer."""

    def __init__(self, config: TrainConfig, base: Base) -> None:
        super().__init__()
        self.config = config
        self.base = base
        self.unet = _trained(base.unet, config)
        self.text_encoder = _trained(base.text_encoder, config) if config.train_text_encoder else None
        schedule = diffusers.DDPMScheduler.from_config(base.scheduler.config)
        self.prediction_type = str(schedule.config.prediction_type)
        self._gathered: dict[str, torch.Tensor] = {}
        self._told: Groups = ()
        self.register_buffer("alphas", schedule.alphas_cumprod.float(), persistent=False)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch, and log its halves; the loss of a whole step is its watchers' to log."""
        losses = self.losses(batch)
        if losses.prior is not None:
            halves = {"train/instance_loss": losses.instance.detach(), "train/prior_loss": losses.prior.detach()}
            self.log_dict(halves, sync_dist=self.trainer.world_size > 1)
        return losses.total

    def losses(self, batch: Batch) -> loss.Losses:
        """Return the loss of a batch of instance rows and, with prior preservation, as many class rows after them."""
        config, keys = self.config, batch["keys"].tolist()
        latents = self._latents(batch, keys)
        noise = draws.normal(config.seed, keys, "noise", latents.shape[1:]).to(latents)
        if config.offset_noise:
            offset = draws.normal(config.seed, keys, "offset", (latents.shape[1], 1, 1))
            noise = noise + loss.OFFSET * offset.to(latents)
        steps = draws.timesteps(config.seed, keys, len(self.alphas)).to(latents.device)
        alphas = self.alphas[steps]
        prediction = self.unet(loss.noisy(latents, noise, alphas), steps, self._states(batch), return_dict=False)[0]
        gamma = config.snr_gamma
        return loss.dreambooth_loss(
            prediction,
            loss.target(self.prediction_type, latents, noise, alphas),
            num_instance=len(keys) // 2 if config.with_prior_preservation else len(keys),
            prior_loss_weight=config.prior_loss_weight,
            weights=None if gamma is None else loss.min_snr_weights(self.prediction_type, alphas, gamma),
        )

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its schedule, one step of it for each of the optimizer's."""
        config, trainer = self.config, self.trainer
        scale = config.train_batch_size * config.gradient_accumulation_steps * trainer.world_size
        text = self.text_encoder.parameters() if self.text_encoder is not None else ()
        groups = parameter_groups(config, self.unet.parameters(), text, scale)
        optimizer = make_optimizer(config, groups)
        schedule = make_schedule(config, optimizer, int(trainer.estimated_stepping_batches))
        self._told = told_options(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Cut long gradients; shards know their common norm only together."""
        model = self.trainer.model
        if isinstance(model, FullyShardedDataParallel) and gradient_clip_val:
            model.clip_grad_norm_(gradient_clip_val)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_fit_start(self) -> None:
        """Lend the frozen modules to the device."""
        for module in self._frozen():
            module.requires_grad_(False).eval().to(self.device)

    def on_train_start(self) -> None:
        """Go on with this run's rates where a checkpoint has brought another's along."""
        schedule: Any = self.trainer.lr_scheduler_configs[0].scheduler
        follow(self.trainer.optimizers[0], schedule, self._told)

    def on_train_end(self) -> None:
        """Gather weights that lie in shards, while the processes still talk to each other."""
        if isinstance(self.trainer.strategy, FSDPStrategy):
            self._gathered = self.trainer.strategy.lightning_module_state_dict()

    def on_fit_end(self) -> None:
        """Take them back, and give trained weights the order in memory in which files hold them."""
        for module in self._frozen():
            module.to("cpu")
        self.unet.to(memory_format=torch.contiguous_format)

    def trained(self) -> Base:
        """Return the base as trained: itself, or with modules of its own where its weights lay in shards."""
        if not self._gathered:
            return self.base
        unet = type(self.base.unet).from_config(self.base.unet.config)
        unet.load_state_dict(_part(self._gathered, "unet."))
        if self.text_encoder is None:
            return replace(self.base, unet=unet)
        text_encoder = type(self.base.text_encoder)(self.base.text_encoder.config)
        text_encoder.load_state_dict(_part(self._gathered, "text_encoder."))
        return replace(self.base, unet=unet, text_encoder=text_encoder)

    def _frozen(self) -> Iterator[Any]:
        yield self.base.vae
        if self.text_encoder is None:
            yield self.base.text_encoder

    @torch.no_grad()
    def _latents(self, batch: Batch, keys: list[int]) -> torch.Tensor:
        """Return scaled latents, drawn from the VAE's distribution of each picture, in float32."""
        vae = self.base.vae
        if "moments" in batch:
            moments = batch["moments"]
        else:
            with torch.autocast(self.device.type, enabled=False):
                moments = vae.encode(batch["pixels"].float()).latent_dist.parameters
        mean, log_variance = moments.float().chunk(2, dim=1)
        spread = (0.5 * log_variance.clamp(-30.0, 20.0)).exp()  # diffusers' bounds
        drawn = draws.normal(self.config.seed, keys, "vae", mean.shape[1:]).to(mean)
        latents: torch.Tensor = (mean + spread * drawn) * vae.config.scaling_factor
        return latents

    def _states(self, batch: Batch) -> torch.Tensor:
        """Return the text encoder's last hidden states, [b, tokens, width]."""
        if "states" in batch:
            return batch["states"]
        encoder = self.base.text_encoder if self.text_encoder is None else self.text_encoder
        states: torch.Tensor = encoder(batch["tokens"], return_dict=False)[0]
        return states


def _part(state: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _trained(module: Any, config: TrainConfig) -> Any:
    """Prepare a module for training; where LoRA froze its weights they stay so."""
    if not config.lora_rank:
        module.requires_grad_(True)
    if config.gradient_checkpointing:
        next(getattr(module, name) for name in _CHECKPOINTING if hasattr(module, name))()
    return module.train().to(memory_format=torch.channels_last)
