import math

import pytest
import torch

from pdmd.errors import UserError
from pdmd.metrics.diversity import (
    LEAST,
    lpips_pairwise,
    mode_shares,
    vendi_score,
    within_prompt,
)
from pdmd.metrics.pictures import pairwise_cosine


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def collapsed(features, kept):
    """The first `kept` samples of each prompt of 16, again and again."""
    rows = torch.arange(len(features))
    return features[rows - rows % 16 + rows % kept]


# ---- cosine within a prompt


def test_the_cosine_is_the_mean_over_prompts_not_over_all_pairs():
    """Two prompts that differ from each other but not within: fully collapsed."""
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat_interleave(LEAST, 0)
    condition = torch.arange(2).repeat_interleave(LEAST)
    assert within_prompt(features, condition, torch.zeros(2)) == pytest.approx(1)
    assert pairwise_cosine(features) < 0.5  # what pairs across prompts would report


def test_what_all_pictures_share_hides_a_collapse_until_it_is_taken_off():
    real = gaussian(64, 32) + 8
    condition = torch.arange(4).repeat_interleave(16)
    few = collapsed(real, 3)
    seen = [within_prompt(x, condition, real.mean(0)) for x in (real, few)]
    hidden = [within_prompt(x, condition, torch.zeros(32)) for x in (real, few)]
    assert seen[1] - seen[0] > 0.2
    assert hidden[1] - hidden[0] < 0.01


def test_pairs_of_prompt_and_image_are_grouped_by_prompt():
    features, prompt = gaussian(32, 6), torch.arange(2).repeat_interleave(16)
    pairs = torch.stack([prompt, torch.arange(32)], 1)
    centre = torch.zeros(6)
    assert within_prompt(features, pairs, centre) == within_prompt(features, prompt, centre)
    one_prompt = torch.zeros_like(prompt)
    assert within_prompt(features, one_prompt, centre) != within_prompt(features, prompt, centre)


def test_too_few_samples_of_a_prompt_are_refused_by_number():
    condition = torch.tensor([3] * LEAST + [7] * (LEAST - 1))
    with pytest.raises(UserError, match=r"prompt 7: 7 samples: expected at least 8"):
        within_prompt(gaussian(len(condition), 4), condition, torch.zeros(4))


# ---- Vendi score


@pytest.mark.parametrize("different", [1, 2, 4, 8])
def test_the_vendi_score_counts_orthogonal_samples(different):
    features = torch.eye(8)[torch.arange(16) % different]
    assert vendi_score(features, torch.zeros(16).long()) == pytest.approx(different, abs=1e-6)


def test_the_vendi_score_is_that_of_the_kernels_eigenvalues():
    features = gaussian(12, 5)
    unit = features.double() / features.double().norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(unit @ unit.T / 12).clamp_min(1e-300)
    expected = math.exp(float(-(values * values.log()).sum()))
    assert vendi_score(features, torch.zeros(12).long()) == pytest.approx(expected, abs=1e-6)
    wrong = torch.linalg.eigvalsh(unit @ unit.T).clamp_min(1e-300)  # not divided by n
    assert math.exp(float(-(wrong * wrong.log()).sum())) != pytest.approx(expected, rel=0.1)


def test_the_vendi_score_falls_with_collapse():
    features, condition = gaussian(64, 32), torch.arange(4).repeat_interleave(16)
    assert vendi_score(collapsed(features, 3), condition) <= 3 + 1e-6
    assert vendi_score(features, condition) > 10


# ---- known modes


def test_equal_shares_cover_everything():
    found = mode_shares(torch.arange(16).repeat(5), 16)
    assert (found.covered, found.entropy, found.tv) == pytest.approx((16, 1, 0))


def test_one_mode_of_four_covers_one_and_is_three_quarters_away():
    found = mode_shares(torch.full((40,), 2), 4)
    assert (found.covered, found.entropy, found.tv) == pytest.approx((1, 0, 0.75))


def test_shares_are_held_against_the_true_ones():
    modes = torch.tensor([0] * 90 + [1] * 10)
    right = mode_shares(modes, 3, torch.tensor([0.9, 0.1, 0.0]))
    assert (right.covered, right.tv) == pytest.approx((2, 0), abs=1e-6)
    equal = mode_shares(modes, 3)
    assert equal.covered == 2
    assert equal.tv == pytest.approx(0.9 - 1 / 3)


def test_a_stray_sample_does_not_cover_a_mode():
    assert mode_shares(torch.tensor([0] * 99 + [1]), 2).covered == 1


def test_no_samples_cover_nothing_and_a_number_outside_is_refused():
    assert mode_shares(torch.tensor([], dtype=torch.long), 4).covered == 0
    assert mode_shares(torch.tensor([], dtype=torch.long), 4).tv == 1
    for wrong in (-1, 4):
        with pytest.raises(UserError, match="expected 0 to 3"):
            mode_shares(torch.tensor([0, wrong]), 4)


# ---- LPIPS


def mean_square(pictures):
    """Mean squared difference over all pairs."""
    rows = pictures.flatten(1)
    first, second = torch.combinations(torch.arange(len(rows))).T
    return (rows[first] - rows[second]).square().mean()


def test_pairs_are_of_one_prompt_alone():
    condition = torch.arange(2).repeat_interleave(LEAST)
    pictures = gaussian(2 * LEAST, 3, 4, 4) + 3 * condition[:, None, None, None]
    order = torch.randperm(len(condition), generator=torch.Generator().manual_seed(0))
    found = lpips_pairwise(mean_square, pictures[order], condition[order])
    parts = pictures.view(2, LEAST, -1)
    assert found == pytest.approx(float(2 * parts.var(1).mean()), rel=1e-5)
    assert found != pytest.approx(float(mean_square(pictures)), rel=0.2)


def test_prompts_count_equally_however_many_samples_they_have():
    condition = torch.tensor([0] * LEAST + [1] * 3 * LEAST)
    pictures = gaussian(len(condition), 3, 4, 4) * (1 + 2 * condition)[:, None, None, None]
    parts = [float(mean_square(pictures[condition == number])) for number in range(2)]
    assert lpips_pairwise(mean_square, pictures, condition) == pytest.approx(sum(parts) / 2)
