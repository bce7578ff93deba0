"""Writes an STLM as the folder of a LlamaForCausalLM, which other engines read without custom code.

The parameters of an STLM have the same names as in Llama, so a default STLM is a Llama. An STLM with parts
that Llama does not have (learned positions, LayerNorm, shared feed-forwards, ...) is refused.
"""

from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tidy_stlms.configs.errors import UserError
from tidy_stlms.configs.files import read_json, whole_folder, write_json, write_whole
from tidy_stlms.configs.reading import reading

from .configuration_stlm import STLMConfig

# Fields that mean the same in both.
SAME = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "head_dim",
    "max_position_embeddings",
    "hidden_act",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_bias",
    "attention_dropout",
    "mlp_bias",
)


def export_llama(model: Any, tokenizer: PreTrainedTokenizerBase | None, out: str | Path) -> list[str]:
    """Write an STLM as the Llama folder `out`, which must not exist: all of it or nothing.

    Args:
        model: An STLMForCausalLM. An adapter of peft is merged into its weights, in place.
        tokenizer: Saved in the same folder.
        out: The folder for config, weights, generation config, tokenizer and a card.

    Returns warnings, a line each.

    Raises UserError for a model that Llama cannot compute, and names the option.
    """
    out = Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already; take another folder")
    if hasattr(model, "merge_and_unload"):
        with reading("the adapter cannot be merged into its base model"):  # some kinds of peft never can
            model = model.merge_and_unload()
    llama_config = to_llama_config(model.config)
    llama: Any = LlamaForCausalLM.from_pretrained(
        None, config=llama_config, state_dict=model.state_dict(), dtype=model.dtype
    )
    llama.generation_config = model.generation_config
    try:
        with whole_folder(out) as folder:
            llama.save_pretrained(folder)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
            _add_older_spellings(folder)
            write_whole(folder / "README.md", _card(out.name, llama.num_parameters()))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror or error})") from None
    return _warnings(model.config)


def to_llama_config(config: STLMConfig) -> LlamaConfig:
    """The LlamaConfig of a model that computes the same.

    Raises UserError, naming the first option that Llama does not have.
    """
    if config.model_type != "stlm":
        raise UserError(f"a model of type {config.model_type!r} cannot be exported as Llama; an STLM can")
    norms = {
        name: getattr(config, name) or config.norm_type
        for name in ("attention_norm_type", "mlp_norm_type", "final_norm_type")
    }
    needed = {
        "position_embedding_type": (config.position_embedding_type, "rotary"),
        **{name: (kind, "rmsnorm") for name, kind in norms.items()},
        "mlp_type": (config.mlp_type, "gated"),
        "num_ffn_groups": (config.num_ffn_groups, None),
        "qk_norm": (config.qk_norm, False),
        "lm_head_bias": (config.lm_head_bias, False),
    }
    for option, (value, wanted) in needed.items():
        if value != wanted:
            words = (
                f"is {value!r} in this model, and Llama has only {'null' if wanted is None else repr(wanted)}"
            )
            raise UserError(f"{option}: {words}; it cannot be exported as Llama")
    fields = {name: getattr(config, name) for name in SAME}
    if hasattr(config, "document_prefix"):  # of a run; see eval/models/prefix.py
        fields["document_prefix"] = config.document_prefix
    # Unset numbers mean something else in Llama, or the code that reads the config derives them itself.
    fields["num_key_value_heads"] = config.num_key_value_heads or config.num_attention_heads
    fields["head_dim"] = config.head_dim or config.hidden_size // config.num_attention_heads
    try:
        return LlamaConfig(**fields)
    except StrictDataclassError as error:
        raise UserError(f"Llama cannot have these sizes: {' '.join(str(error.__cause__).split())}") from None


def _add_older_spellings(folder: Path) -> None:
    """Add the keys of transformers 4, which other engines read, where transformers 5 has renamed them."""
    config = read_json(folder / "config.json")
    scaling = dict(config["rope_parameters"])
    config["rope_theta"] = scaling.pop("rope_theta")
    if scaling["rope_type"] != "default":
        config["rope_scaling"] = scaling
    write_json(folder / "config.json", config)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        tokenizer = read_json(path)
        if tokenizer["tokenizer_class"] == "TokenizersBackend":
            tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(tokenizer.get("extra_special_tokens"), list):
            tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
        write_json(path, tokenizer)


def _warnings(config: STLMConfig) -> list[str]:
    warnings = []
    if config.hidden_act != "silu":
        warnings.append(
            f"hidden_act is {config.hidden_act!r}: transformers computes that, other engines may take silu"
        )
    lost = [name for name in ("embd_dropout", "resid_dropout") if getattr(config, name)]
    if lost:
        warnings.append(f"Llama has no {' and no '.join(lost)}: further training would be without")
    return warnings


def _card(name: str, parameters: int) -> str:
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- stlm
- tidy-stlms
---

# {name}

A Super Tiny Language Model of {parameters:,} parameters in the format of Llama, exported by Tidy STLMs.
It needs no custom code.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("path/to/{name}")
tokenizer = AutoTokenizer.from_pretrained("path/to/{name}")
```
"""
