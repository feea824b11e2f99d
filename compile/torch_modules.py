"""A checkpoint's components as torch modules of float tensors alone, around diffusers' and transformers' own.

They are what is exported, and what engines are compared with. Imports torch and transformers.
"""

import torch
import transformers


class TextStates(torch.nn.Module):
    """CLIP's text encoder from token embeddings on, as transformers computes it from ids.

    Takes float32 [rows, tokens, width] and gives float32 [rows, 1 + num_skips, tokens, width]: the states of the last
    layer, and of those before it which clip skip asks for, each after the final layer norm, as diffusers uses them.
    """

    def __init__(self, encoder: transformers.CLIPTextModel, num_skips: int) -> None:
        super().__init__()
        inner = getattr(encoder, "text_model", encoder)  # transformers 5 has one module less
        self.positions = inner.embeddings.position_embedding
        self.layers = inner.encoder.layers
        self.norm = inner.final_layer_norm
        self.num_skips = num_skips

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Run the encoder with CLIP's causal mask."""
        tokens = embeddings.shape[1]
        states = embeddings + self.positions.weight[:tokens]
        mask = torch.full((tokens, tokens), torch.finfo(torch.float32).min).triu(1)[None, None]
        kept = [states]
        for layer in self.layers:
            out = layer(states, attention_mask=mask)
            states = out[0] if isinstance(out, tuple) else out
            kept.append(states)
        return torch.stack([self.norm(s) for s in reversed(kept[-1 - self.num_skips :])], dim=1)


class Denoiser(torch.nn.Module):
    """The UNet with a float32 timestep for each row, and with guidance where the model was distilled with it."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, guidance: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the model output, float32 [rows, C, height, width]."""
        found = self.unet(sample, timestep, text, timestep_cond=guidance, return_dict=False)
        return found[0]  # type: ignore[no-any-return]


class FillingDenoiser(Denoiser):
    """The UNet of a model that was trained to inpaint: its own input channels as three inputs."""

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        mask: torch.Tensor,
        masked_latents: torch.Tensor,
        guidance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the model output, float32 [rows, C, height, width]; ``mask`` is 1 where the picture is drawn anew."""
        return super().forward(torch.cat([sample, mask, masked_latents], dim=1), timestep, text, guidance)


class Decoder(torch.nn.Module):
    """The VAE's way from latents (divided by the scaling factor) to pixels in −1…1."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return float32 [rows, 3, H, W]."""
        return self.vae.decode(latents, return_dict=False)[0]  # type: ignore[operator,no-any-return]


class Encoder(torch.nn.Module):
    """The VAE's way from pixels in −1…1 to the mean and log variance of latents."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 [rows, 2C, height, width]."""
        moments: torch.Tensor = self.vae.encoder(pixels)  # type: ignore[operator]
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)  # type: ignore[operator]
        return moments
