import pytest
import torch
from tiny import qwen_vae, wan_vae

from pdmd.data.codec import fit_patches, from_patches, load_codec, load_vae, save_codec, to_patches
from pdmd.errors import UserError
from pdmd.files.storage import load_tensors, save_tensors


def clips(n=40):
    return torch.rand(n, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_patches_are_a_permutation():
    x = clips(3)
    patches = to_patches(x, (2, 4, 4))
    assert patches.shape == (3, 2, 2, 2, 96)
    assert torch.equal(from_patches(patches, (2, 4, 4)), x)


def test_all_components_give_the_clips_back_and_few_do_not():
    x = clips()
    whole, kept = fit_patches(x, [2, 4, 4], 96, 0.5)
    assert kept == pytest.approx(1)
    assert torch.allclose(whole.decode(whole.encode(x)), x, atol=1e-4)
    few, kept = fit_patches(x, [2, 4, 4], 8, 0.5)
    assert kept < 0.5
    assert not torch.allclose(few.decode(few.encode(x)), x, atol=0.1)  # control


def test_latents_have_unit_mean_variance():
    codec, _ = fit_patches(clips(200), [2, 4, 4], 8, 0.5)
    variance = codec.encode(clips(200)).movedim(1, -1).flatten(0, -2).var(0)
    assert float(variance.mean()) == pytest.approx(1, abs=0.05)


def test_a_codec_comes_back_from_its_file(tmp_path):
    codec, _ = fit_patches(clips(), [2, 4, 4], 8, 0.5)
    save_codec(tmp_path / "codec.safetensors", codec, {"kind": "patches"})
    again = load_codec(tmp_path / "codec.safetensors")
    assert torch.equal(again.encode(clips()), codec.encode(clips()))


@pytest.mark.parametrize(
    ("patch", "channels", "words"),
    [([3, 4, 4], 8, "expected divisors"), ([2, 4, 4], 97, "expected at most 96")],
)
def test_a_patch_that_does_not_fit_is_refused(patch, channels, words):
    with pytest.raises(UserError, match=words):
        fit_patches(clips(), patch, channels, 0.5)


@pytest.mark.parametrize(
    ("kind", "make"), [("AutoencoderKLWan", wan_vae), ("AutoencoderKLQwenImage", qwen_vae)]
)
def test_a_vae_of_a_local_hub_folder_normalises_its_latents(tmp_path, kind, make):
    vae = make()
    vae.save_pretrained(tmp_path / "vae")
    codec = load_vae(kind, str(tmp_path))
    x = clips(1)[:, :, :1].repeat_interleave(2, -1).repeat_interleave(2, -2)
    with torch.no_grad():
        raw = vae.encode(x).latent_dist.mode()
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    assert torch.allclose(codec.encode(x), (raw - mean) / std, atol=1e-5)
    assert not torch.allclose(codec.encode(x), raw, atol=1e-2)  # control
    assert codec.decode(codec.encode(x)).shape == x.shape


def test_a_folder_without_a_vae_is_refused(tmp_path):
    with pytest.raises(UserError, match="expected a folder or hub name with a AutoencoderKLWan"):
        load_vae("AutoencoderKLWan", str(tmp_path))


def change(path, **tensors):
    """Write a file again with other tensors; None drops one."""
    whole = load_tensors(path) | tensors
    save_tensors(path, {name: tensor for name, tensor in whole.items() if tensor is not None})


WEIGHTS = "diffusion_pytorch_model.safetensors"
BROKEN = {
    "no config": lambda vae: (vae / "config.json").unlink(),
    "no weights": lambda vae: (vae / WEIGHTS).unlink(),
    "half": lambda vae: (vae / WEIGHTS).write_bytes((vae / WEIGHTS).read_bytes()[:5000]),
    "[]": lambda vae: (vae / "config.json").write_text("[]"),
    "other sizes": lambda vae: (vae / "config.json").write_text(
        (vae / "config.json").read_text().replace('"z_dim": 16', '"z_dim": 8')
    ),
    "a tensor gone": lambda vae: change(vae / WEIGHTS, **{"quant_conv.bias": None}),
    "NaN": lambda vae: change(vae / WEIGHTS, **{"quant_conv.bias": torch.full((32,), torch.nan)}),
    "another shape": lambda vae: change(vae / WEIGHTS, **{"quant_conv.bias": torch.zeros(7)}),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_vae_is_refused_in_one_line(tmp_path, damage):
    """diffusers makes up the weights that are missing, and warns."""
    wan_vae().save_pretrained(tmp_path / "vae")
    load_vae("AutoencoderKLWan", str(tmp_path))  # control
    BROKEN[damage](tmp_path / "vae")
    with pytest.raises(UserError, match="expected a folder or hub name") as caught:
        load_vae("AutoencoderKLWan", str(tmp_path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300
