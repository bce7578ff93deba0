"""The STLM model family. Importing this package registers it with transformers' Auto classes.

`save_pretrained` copies `configuration_stlm*.py` and `modeling_stlm*.py` into the model's folder, and not
this file.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_stlm import STLMConfig
from .configuration_stlm_byte import STLMByteConfig
from .modeling_stlm import STLMForCausalLM, STLMModel
from .modeling_stlm_byte import STLMByteForCausalLM, STLMByteModel

# The same as in pyproject.toml. Model cards name it too.
LOWEST_TRANSFORMERS = "5.21"

for config_class, model_class, causal_class in (
    (STLMConfig, STLMModel, STLMForCausalLM),
    (STLMByteConfig, STLMByteModel, STLMByteForCausalLM),
):
    # In this process, the Auto classes know the model type and need no remote code.
    AutoConfig.register(config_class.model_type, config_class)
    AutoModel.register(config_class, model_class)
    AutoModelForCausalLM.register(config_class, causal_class)

    # For other machines, save_pretrained() copies the code beside the weights and names the classes in the
    # config.
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
