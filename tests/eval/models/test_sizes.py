"""Sizes in configs: absurd ones are refused, those of existing models are not."""

import pytest

from tidy_stlms.configs.errors import UserError
from tidy_stlms.eval.models.sizes import check_numbers

HONEST = [{
    "shared_expert_intermediate_size": 5632, "num_training_tokens": 300_000_000_000, "n_layer": 96,
    "train_num_sequences": 200_000_000, "num_tokens_per_layer_group": 3000, "vocab_size": 256_000,
    "layers": [{"num_experts": 512}], "max_position_embeddings": 10_485_760, "seed": -(2**31),
}, {
    "rope_theta": 10**9, "max_position_embeddings": 10_485_760, "vocab_size": 262_208,
    "num_hidden_layers": 126, "num_experts": 512, "time_step_limit": [0.0, float("inf")], "block_size": 8192,
    "mlp_only_layers": [0, 1], "is_decoder": True,
}]  # fmt: skip


@pytest.mark.parametrize("fields", HONEST, ids=["odd names", "large sizes"])
def test_sizes_of_existing_models_pass(fields):
    """Nothing is raised."""
    check_numbers(fields, "m")


@pytest.mark.parametrize(
    "key",
    ["num_hidden_layers", "n_layer", "num_local_experts", "encoder_layers", "hidden_size", "n_positions"],
)
def test_absurd_sizes_are_refused(key):
    with pytest.raises(UserError, match=rf"m: '{key}' is [\d,]+; at most"):
        check_numbers({"text_config": [{key: 10**12}]}, "m")
