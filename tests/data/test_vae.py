"""The families' VAEs, and what image-to-video is given beside x_t."""

import diffusers
import pytest
import torch
from PIL import Image

from pdmd.config.sections import latent_size
from pdmd.data.vae import family_codec, first_frame
from pdmd.models.families import FAMILIES
from pdmd.models.tiny import write_tiny

SIZES = [(9, 32, 48), (5, 48, 32), (1, 64, 64)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "i2v"
    write_tiny("wan2.2-i2v-a14b", folder)
    return folder


@pytest.mark.parametrize("size", SIZES[:2])
def test_a_first_frame_is_what_the_pipeline_makes_of_it(base, size):
    pipeline = diffusers.WanImageToVideoPipeline.from_pretrained(base)
    image = Image.effect_noise((100, 70), 80).convert("RGB")
    frames, height, width = size
    picture = pipeline.video_processor.preprocess(image, height=height, width=width)
    with torch.no_grad():
        _, (theirs,) = pipeline.prepare_latents(
            picture.float(), 1, 16, height, width, frames, torch.float32, torch.device("cpu")
        )
    codec = family_codec(base, FAMILIES["wan2.2-i2v-a14b"])
    ours = first_frame(codec, image, size)
    assert torch.equal(ours, theirs)
    assert tuple(ours.shape) == (20, *latent_size(size))
    assert not torch.equal(first_frame(codec, Image.new("RGB", (8, 8)), size), theirs)  # control
    assert ours[:4, 0].eq(1).all()
    assert not ours[:4, 1:].any()


@pytest.mark.parametrize("size", SIZES)
def test_latents_have_the_size_that_is_said(base, size):
    codec = family_codec(base, FAMILIES["wan2.2-i2v-a14b"])
    x = torch.rand(1, 3, *size) * 2 - 1
    z = codec.encode(x)
    assert tuple(z.shape[1:]) == (16, *latent_size(size))
    assert codec.decode(z).shape == x.shape
