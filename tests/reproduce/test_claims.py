"""The claims and arms: complete, consistent, and settings that can be trained."""

import dataclasses
import json

import pytest

from alexnet.architecture import check_network
from alexnet.config import Config, replace
from alexnet.errors import UsageError
from alexnet.reproduce.claims import CHOICES, CLAIMS, Claim, arms_of, claim_of
from alexnet.reproduce.scales import ARMS, BASE, SCALES, config_of, fingerprint, scale_of

EVERY = (*CLAIMS, CHOICES)
MEASURED = [
    pytest.param(arm, scale, id=f"{scale}-{arm}")
    for scale in SCALES
    for arm in dict.fromkeys(arm for claim in EVERY for arm in arms_of(claim, scale))
    if not ARMS[arm].baseline
]


def test_the_claims_are_the_papers_eighteen() -> None:
    assert [claim.number for claim in CLAIMS] == list(range(1, 19))
    assert all(claim.statement.endswith(".") and claim.section.startswith("§") and claim.paper for claim in EVERY)


@pytest.mark.parametrize("claim", EVERY, ids=lambda claim: str(claim.number))
def test_what_a_claim_compares_exists(claim: Claim) -> None:
    for one in claim.comparisons:
        assert {one.better.arm, one.worse.arm} <= set(ARMS) and set(one.scales) <= set(SCALES)
        assert one.better != one.worse
    assert len({(one.name, one.scales) for one in claim.comparisons}) == len(claim.comparisons)
    for scale in claim.scales:  # a verdict needs something that decides
        assert any(one.decides for one in claim.comparisons if scale in one.scales)


def test_every_arm_is_compared_or_begun_from() -> None:
    used = {arm for claim in EVERY for scale in SCALES for arm in arms_of(claim, scale)}
    assert used | {ARMS[arm].start for arm in used} - {""} == set(ARMS)


@pytest.mark.parametrize(("arm", "scale"), MEASURED)
def test_a_run_has_the_fingerprint_of_its_arm(arm: str, scale: str) -> None:
    """Also after a run's config.json: whole numbers where settings are real ones."""
    config = config_of(ARMS[arm], SCALES[scale], 0)
    read = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert fingerprint(read) == fingerprint(config)


@pytest.mark.parametrize(("arm", "scale"), MEASURED)
def test_an_arm_is_a_network_that_can_be_trained(arm: str, scale: str) -> None:
    config = config_of(ARMS[arm], SCALES[scale], 3)
    check_network(config.network)
    assert config.train.seed == 3
    base = config_of(ARMS[BASE], SCALES[scale], 3)
    assert (fingerprint(config) == fingerprint(base)) == (arm == BASE)


def test_a_fingerprint_is_of_what_is_learned_and_not_of_where_or_by_which_seed() -> None:
    arm, scale = ARMS["no-lrn"], SCALES["digits"]
    config = config_of(arm, scale, 0)
    same = replace(config, {"train.threads": "2", "train.device": "cpu", "data.source": "digits", "data.workers": "3"})
    assert fingerprint(same) == fingerprint(config) == fingerprint(config_of(arm, scale, 7))
    for path, text in (("optimizer.lr", "0.1"), ("network.conv1.kernels", "16"), ("train.epochs", "7")):
        assert fingerprint(replace(config, {path: text})) != fingerprint(config)
    smaller = dataclasses.replace(config, augment=dataclasses.replace(config.augment, crop=False))
    assert fingerprint(smaller) != fingerprint(config)


def test_the_one_column_arm_is_the_papers_one_gpu_net() -> None:
    from alexnet import presets

    config = config_of(ARMS["one-column"], SCALES["imagenet"], 0)
    assert config.network.layers == presets.preset("one-gpu").network.layers


def test_a_fine_tuned_arm_begins_from_an_arm_of_the_same_layers() -> None:
    for scale in ("cifar10", "tiny-imagenet"):
        tuned = config_of(ARMS["fine-tuned"], SCALES[scale], 0)
        start = config_of(ARMS[ARMS["fine-tuned"].start], SCALES[scale], 0)
        assert tuned.network.layers == start.network.layers
        assert "conv6" in [layer.name for layer in tuned.network.layers]
        assert tuned.optimizer.lr == pytest.approx(start.optimizer.lr / 10)


def test_what_does_not_exist_is_told_in_one_line() -> None:
    with pytest.raises(UsageError, match="there is no claim 19; they are 1 to 18"):
        claim_of(19)
    with pytest.raises(UsageError, match="no scale 'cifar'; did you mean cifar10"):
        scale_of("cifar")
    with pytest.raises(UsageError, match="digits, cifar10, tiny-imagenet, imagenet"):
        scale_of("\x00" * 500)
