"""The STLM model family. Importing this package registers it with transformers' Auto classes.

This file stays here when a model is saved; `configuration_stlm*.py` and `modeling_stlm*.py` go along.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_stlm import STLMConfig
from .configuration_stlm_byte import STLMByteConfig
from .modeling_stlm import STLMForCausalLM, STLMModel
from .modeling_stlm_byte import STLMByteForCausalLM, STLMByteModel

# As in pyproject.toml: the code of STLMs uses what this version brought. Model cards say so.
LOWEST_TRANSFORMERS = "5.21"

for config_class, model_class, causal_class in (
    (STLMConfig, STLMModel, STLMForCausalLM),
    (STLMByteConfig, STLMByteModel, STLMByteForCausalLM),
):
    # In this process: the Auto classes know the model type, and no remote code is asked for.
    AutoConfig.register(config_class.model_type, config_class)
    AutoModel.register(config_class, model_class)
    AutoModelForCausalLM.register(config_class, causal_class)

    # Elsewhere: save_pretrained() copies the code beside the weights and says where the classes are.
    config_class.register_for_auto_class()
    model_class.register_for_auto_class("AutoModel")
    causal_class.register_for_auto_class("AutoModelForCausalLM")

__all__ = [
    "LOWEST_TRANSFORMERS",
    "STLMByteConfig",
    "STLMByteForCausalLM",
    "STLMByteModel",
    "STLMConfig",
    "STLMForCausalLM",
    "STLMModel",
]
