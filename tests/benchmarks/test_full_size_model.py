"""The random model that stands for the full-size one: its trajectories stay at a trained model's size."""

import diffusers
import pytest
import torch

from benchmarks.full_size_model import predict_the_sample

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def unet() -> diffusers.UNet2DConditionModel:
    torch.manual_seed(0)
    layout = {"block_out_channels": (64, 128), "attention_head_dim": 4, "cross_attention_dim": 32}
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    return diffusers.UNet2DConditionModel(**layout, down_block_types=down, up_block_types=up).eval()


def predicted(unet: diffusers.UNet2DConditionModel, sample: torch.Tensor, timestep: int) -> torch.Tensor:
    with torch.no_grad():
        noise: torch.Tensor = unet(sample, timestep, torch.randn(len(sample), 7, 32)).sample
    return noise


def test_samples_keep_their_size_on_the_way_and_depend_on_what_the_network_computes(
    unet: diffusers.UNet2DConditionModel,
) -> None:
    generator = torch.Generator().manual_seed(1)
    sample = torch.randn(2, 4, 16, 16, generator=generator)
    grown = final_size(unet, sample)
    predict_the_sample(unet)
    noise = predicted(unet, sample, 500)
    assert torch.corrcoef(torch.stack([noise.flatten(), sample.flatten()]))[0, 1] > 0.8
    assert (noise - sample / sample.std()).std() > 0.05
    assert grown > 5
    assert 0.3 < final_size(unet, sample) < 2


def final_size(unet: diffusers.UNet2DConditionModel, sample: torch.Tensor) -> float:
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    scheduler.set_timesteps(15)
    for timestep in scheduler.timesteps:
        sample = scheduler.step(predicted(unet, sample, timestep), timestep, sample).prev_sample
    return float(sample.std())
