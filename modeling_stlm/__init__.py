"""The STLM model family. Importing this package registers it with transformers' Auto classes.

This file stays here when a model is saved; `configuration_stlm.py` and `modeling_stlm.py` go along.
"""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from .configuration_stlm import STLMConfig
from .modeling_stlm import STLMForCausalLM, STLMModel

# In this process: the Auto classes know the model type, and no remote code is asked for.
AutoConfig.register(STLMConfig.model_type, STLMConfig)
AutoModel.register(STLMConfig, STLMModel)
AutoModelForCausalLM.register(STLMConfig, STLMForCausalLM)

# Elsewhere: save_pretrained() copies the code beside the weights and says where the classes are.
STLMConfig.register_for_auto_class()
STLMModel.register_for_auto_class("AutoModel")
STLMForCausalLM.register_for_auto_class("AutoModelForCausalLM")

__all__ = ["STLMConfig", "STLMForCausalLM", "STLMModel"]
